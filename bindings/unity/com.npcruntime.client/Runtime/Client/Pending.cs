#nullable enable
using System;
using System.Threading;
using System.Threading.Tasks;
using NpcRuntime.Wire;

namespace NpcRuntime
{
    /// <summary>A request under way. Called by the connection's thread alone, except before it is sent.</summary>
    internal abstract class Pending
    {
        /// <summary>The answer that ends the request well.</summary>
        internal abstract void End(Fields told);

        /// <summary>Ends the request with an error, unless it has ended.</summary>
        internal abstract void Fail(NpcException error);

        /// <summary>Part of a Reply; only speech has any.</summary>
        internal virtual void Take(Piece piece)
        {
        }
    }

    /// <summary>A request whose answer nobody waits for.</summary>
    internal sealed class Unheard : Pending
    {
        internal static readonly Unheard Instance = new Unheard();

        internal override void End(Fields told)
        {
        }

        internal override void Fail(NpcException error)
        {
        }
    }

    /// <summary>A request whose result is awaited.</summary>
    internal sealed class Pending<T> : Pending
    {
        // Continuations never run on the connection's thread: a game's code there would stop the heartbeat.
        private readonly TaskCompletionSource<T> _source = new TaskCompletionSource<T>(TaskCreationOptions.RunContinuationsAsynchronously);
        private readonly Func<Fields, T> _read;
        private CancellationTokenRegistration _registration;

        internal Pending(Func<Fields, T> read, CancellationToken cancellation = default)
        {
            _read = read;
            if (cancellation.CanBeCanceled)
            {
                _registration = cancellation.Register(() => _source.TrySetCanceled(cancellation));
            }
        }

        internal Task<T> Result => _source.Task;

        internal override void End(Fields told)
        {
            try
            {
                _source.TrySetResult(_read(told));
            }
            catch (NpcException error)
            {
                _source.TrySetException(error);
            }
            _registration.Dispose();
        }

        internal override void Fail(NpcException error)
        {
            _source.TrySetException(error);
            _registration.Dispose();
        }
    }
}

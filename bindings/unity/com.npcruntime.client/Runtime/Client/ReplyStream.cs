#nullable enable
using System;
using System.Collections.Generic;
using System.Text;
using System.Threading;
using System.Threading.Tasks;
using System.Threading.Tasks.Sources;
using NpcRuntime.Wire;

namespace NpcRuntime
{
    /// <summary>
    /// A Reply in Pieces, read once: by <c>await foreach</c>, or by <see cref="TryRead"/> in a game loop. <see cref="Reply"/> is
    /// the whole. Cancelling cuts the Npc short, and it remembers what was read from here: what was heard.
    /// </summary>
    public sealed class ReplyStream : IAsyncEnumerable<Piece>
    {
        /// <summary>Unread Pieces that are kept apart; text beyond them is joined into one, so nothing is lost and little is held.</summary>
        internal const int MaxPieces = 256;

        /// <summary>Characters of one Reply that are taken; a daemon that sends more is broken.</summary>
        internal const int MaxChars = 1 << 20;

        private readonly object _guard = new object();
        private readonly Queue<Piece> _pieces = new Queue<Piece>();
        private readonly StringBuilder _joined = new StringBuilder();
        private readonly Action<string, int> _cut;
        private readonly Pending<Reply> _whole;
        private CancellationTokenRegistration _registration;
        private Reader? _reader;
        private int _chars;
        private int _heard;
        private bool _cancelled;

        internal ReplyStream(string npc, Action<string, int> cut)
        {
            Npc = npc;
            _cut = cut;
            _whole = new Pending<Reply>(told => new Reply(told));
            Intake = new Feeder(this);
            // Nobody need await the Reply of a stream whose Pieces told all; its error is then no unobserved one.
            Reply.ContinueWith(ended => _ = ended.Exception, CancellationToken.None, TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default);
        }

        /// <summary>Id of the Npc that speaks.</summary>
        public string Npc { get; }

        /// <summary>The whole Reply; fails with <see cref="NpcException"/>. A Reply that was cut has <c>cancelled</c> as its finish.</summary>
        public Task<Reply> Reply => _whole.Result;

        /// <summary>Characters (code points) of the text that were read from here.</summary>
        public int Heard
        {
            get
            {
                lock (_guard)
                {
                    return _heard;
                }
            }
        }

        /// <summary>What the connection feeds.</summary>
        internal Pending Intake { get; }

        /// <summary>The next Piece if there is one; never waits and never allocates. For game loops.</summary>
        public bool TryRead(out Piece piece)
        {
            lock (_guard)
            {
                bool any = _pieces.Count > 0 || _joined.Length > 0;
                piece = !any ? default : _pieces.Count > 0 ? _pieces.Dequeue() : Joined();
                _heard += any ? CodePoints(piece.Text) : 0;
                return any;
            }
        }

        /// <summary>Cuts the Npc short at what was read so far, and empties its queue of Turns; does nothing after the end.</summary>
        public void Cancel()
        {
            int heard;
            lock (_guard)
            {
                if (_cancelled || Reply.IsCompleted)
                {
                    return;
                }
                _cancelled = true;
                heard = _heard;
            }
            _cut(Npc, heard);
        }

        /// <summary>Reads every Piece. This token cuts the Npc short and ends the loop at once; the verb's own cuts it and lets the loop end.</summary>
        /// <exception cref="NpcException">The Turn failed or the connection was lost.</exception>
        /// <exception cref="OperationCanceledException">The token was cancelled.</exception>
        /// <exception cref="InvalidOperationException">The stream is read already.</exception>
        public IAsyncEnumerator<Piece> GetAsyncEnumerator(CancellationToken cancellationToken = default)
        {
            lock (_guard)
            {
                if (_reader != null)
                {
                    throw new InvalidOperationException("a ReplyStream can be read once");
                }
                _reader = new Reader(this, cancellationToken);
            }
            _reader.Watch();
            return _reader;
        }

        /// <summary>Lets a token cancel from now on: once the request is sent, so that the cut cannot overtake it.</summary>
        internal void Obey(CancellationToken cancellation)
        {
            _registration = cancellation.Register(Cancel);
            if (Reply.IsCompleted)
            {
                _registration.Dispose();
            }
        }

        private static int CodePoints(string text)
        {
            int count = text.Length;
            foreach (char unit in text)
            {
                count -= char.IsLowSurrogate(unit) ? 1 : 0;
            }
            return count;
        }

        private Piece Joined()
        {
            var piece = new Piece(null, null, _joined.ToString());
            _joined.Clear();
            return piece;
        }

        private void Take(Piece piece)
        {
            lock (_guard)
            {
                _chars += piece.Text.Length + 1;
                if (_chars > MaxChars)
                {
                    throw NpcException.BadFrame($"a Reply of more than {MaxChars} characters");
                }
                if (_pieces.Count < MaxPieces && _joined.Length == 0)
                {
                    _pieces.Enqueue(piece);
                }
                else
                {
                    _joined.Append(piece.Text);
                }
            }
            _reader?.Wake();
        }

        private void Ended()
        {
            _registration.Dispose();
            _reader?.Wake();
        }

        /// <summary>The connection's side.</summary>
        private sealed class Feeder : Pending
        {
            private readonly ReplyStream _stream;

            internal Feeder(ReplyStream stream) => _stream = stream;

            internal override void Take(Piece piece) => _stream.Take(piece);

            internal override void End(Fields told)
            {
                _stream._whole.End(told);
                _stream.Ended();
            }

            internal override void Fail(NpcException error)
            {
                _stream._whole.Fail(error);
                _stream.Ended();
            }
        }

        /// <summary>The loop's side: one wait at a time, without an allocation per wait.</summary>
        private sealed class Reader : IAsyncEnumerator<Piece>, IValueTaskSource<bool>
        {
            private readonly ReplyStream _stream;
            private readonly CancellationToken _cancellation;
            private CancellationTokenRegistration _registration;
            private ManualResetValueTaskSourceCore<bool> _core;
            private bool _waiting;
            private Piece _current;

            internal Reader(ReplyStream stream, CancellationToken cancellation)
            {
                _stream = stream;
                _cancellation = cancellation;
                _core.RunContinuationsAsynchronously = true;
            }

            public Piece Current => _current;

            public ValueTask<bool> MoveNextAsync()
            {
                lock (_stream._guard)
                {
                    _cancellation.ThrowIfCancellationRequested();
                    if (_stream.TryRead(out _current))
                    {
                        return new ValueTask<bool>(true);
                    }
                    if (_stream.Reply.IsCompleted)
                    {
                        _stream.Reply.GetAwaiter().GetResult(); // throws what the Turn failed with
                        return new ValueTask<bool>(false);
                    }
                    _core.Reset();
                    _waiting = true;
                    return new ValueTask<bool>(this, _core.Version);
                }
            }

            public ValueTask DisposeAsync()
            {
                _registration.Dispose();
                return default;
            }

            /// <summary>What the wait came to; throws what the Turn failed with.</summary>
            public bool GetResult(short token)
            {
                _core.GetResult(token);
                _cancellation.ThrowIfCancellationRequested();
                if (_stream.TryRead(out _current))
                {
                    return true;
                }
                _stream.Reply.GetAwaiter().GetResult();
                return false;
            }

            public ValueTaskSourceStatus GetStatus(short token) => _core.GetStatus(token);

            public void OnCompleted(Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
                _core.OnCompleted(continuation, state, token, flags);

            internal void Watch() => _registration = _cancellation.Register(() =>
            {
                _stream.Cancel();
                Wake();
            });

            /// <summary>Ends a wait if there is one.</summary>
            internal void Wake()
            {
                lock (_stream._guard)
                {
                    if (!_waiting)
                    {
                        return;
                    }
                    _waiting = false;
                }
                _core.SetResult(true);
            }
        }
    }
}

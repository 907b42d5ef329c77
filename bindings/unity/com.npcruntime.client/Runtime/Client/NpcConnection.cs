#nullable enable
using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Threading;
using System.Threading.Tasks;
using NpcRuntime.Wire;

namespace NpcRuntime
{
    /// <summary>
    /// One connection to a daemon. A thread of its own owns the socket, so that requests may come from any thread and
    /// heartbeats are answered while the game is busy. A connection that is lost stays lost.
    /// </summary>
    internal sealed class NpcConnection : IDisposable
    {
        /// <summary>Most bytes of one answer that are read.</summary>
        internal const int MaxEventBytes = 256 << 20;

        /// <summary>Most requests under way.</summary>
        internal const int MaxOpen = 4096;

        private readonly object _guard = new object();
        private readonly Dictionary<long, Pending> _open = new Dictionary<long, Pending>();
        private readonly Outbox _outbox = new Outbox();
        private readonly AutoResetEvent _woken = new AutoResetEvent(false);
        private readonly TaskCompletionSource<NpcException> _lost =
            new TaskCompletionSource<NpcException>(TaskCreationOptions.RunContinuationsAsynchronously);

        private readonly Pending<Hello> _greeting;
        private readonly string _session;
        private readonly Link _link;
        private readonly Thread _thread;
        private readonly Zmtp _zmtp;
        private readonly long _hurry;
        private NpcException? _why;
        private volatile Hello? _hello;
        private long _lastId;
        private long _heardAt;
        private long _askedAt;
        private bool _greeted;
        private volatile bool _closing;

        /// <exception cref="NpcException">BadConfig: the endpoint is none, or of another machine. WrongKey: no key.</exception>
        internal NpcConnection(string endpoint, string key, string session, TimeSpan timeout)
        {
            Endpoint.Parse(endpoint, out string host, out int port);
            if (key.Length == 0)
            {
                throw new NpcException(NpcErrorCode.WrongKey, "a key is needed", "The ready line of the daemon tells it");
            }
            _session = session;
            _greeting = new Pending<Hello>(told => _hello = new Hello(told));
            _zmtp = new Zmtp(key, MaxEventBytes);
            _hurry = Now + (long)timeout.TotalMilliseconds;
            _link = new Link(host, port, _woken);
            _thread = new Thread(Run) { Name = "npc-runtime-client", IsBackground = true };
            _thread.Start();
        }

        /// <summary>The daemon's answer to ours; fails when nobody answers in time, or the key or version is refused.</summary>
        internal Task<Hello> Greeting => _greeting.Result;

        /// <summary>Ends, never fails, when the connection is lost, with the reason.</summary>
        internal Task<NpcException> WhenLost => _lost.Task;

        private static long Now => Stopwatch.GetTimestamp() / (Stopwatch.Frequency / 1000);

        /// <summary>Sends a request; its answer, or an error, goes to <paramref name="pending"/>. From any thread; never blocks.</summary>
        internal void Send(Dictionary<string, object?> body, Pending pending)
        {
            NpcException? error = TrySend(body, pending);
            if (error != null)
            {
                pending.Fail(error);
            }
        }

        /// <summary>Lets the thread end soon, without waiting for it.</summary>
        internal void Leave()
        {
            _closing = true;
            _woken.Set();
        }

        /// <summary>Leaves without a word; what is under way fails with ConnectionLost.</summary>
        public void Dispose()
        {
            Leave();
            if (Thread.CurrentThread != _thread)
            {
                _thread.Join();
            }
        }

        private NpcException? TrySend(Dictionary<string, object?> body, Pending pending)
        {
            long id = Interlocked.Increment(ref _lastId);
            body["id"] = id;
            byte[] packed;
            try
            {
                packed = MsgPackWriter.Pack(body);
            }
            catch (NpcException error)
            {
                return error;
            }
            long most = _hello?.MaxFrameBytes ?? 1 << 20;
            if (packed.Length > most)
            {
                return new NpcException(NpcErrorCode.TooLarge, $"a message may hold {most} bytes, this `{body["op"]}` has {packed.Length}");
            }
            NpcException? refused = Enqueue(id, Zmtp.Message(packed), pending);
            _woken.Set();
            return refused;
        }

        private NpcException? Enqueue(long id, byte[] frame, Pending pending)
        {
            lock (_guard)
            {
                if (_why != null)
                {
                    return _why;
                }
                if (_open.Count >= MaxOpen || !_outbox.TryAdd(frame))
                {
                    return new NpcException(
                        NpcErrorCode.QueueFull, $"{_open.Count} requests are under way", "Wait for some to end before sending more", true);
                }
                _open[id] = pending;
                return null;
            }
        }

        // ---- the connection's thread

        private void Run()
        {
            NpcException why = NpcException.Lost("the connection was closed");
            try
            {
                while (!_closing)
                {
                    Round();
                }
                Transmit();
            }
            catch (NpcException error)
            {
                why = error;
            }
            catch (Exception defect) // a defect here must leave nobody waiting
            {
                why = new NpcException(NpcErrorCode.Internal, $"the client's thread failed: {defect.Message}", inner: defect);
            }
            Lose(why);
            _link.Dispose();
        }

        private void Round()
        {
            Receive();
            if (_zmtp.IsOpen && !_greeted)
            {
                _greeted = true;
                Send(Requests.Hello("csharp", _session), _greeting);
            }
            Transmit();
            Beat();
            _woken.WaitOne(WaitMs());
        }

        private int WaitMs()
        {
            double silence = _hello?.HeartbeatSeconds ?? 0.4;
            return silence > 0 ? (int)Math.Min(250 * silence, 60_000) + 1 : 60_000;
        }

        private void Receive()
        {
            while (_link.TryReceive(out ReadOnlyMemory<byte> chunk))
            {
                _heardAt = Now;
                _zmtp.Feed(chunk.Span);
                while (_zmtp.TryNext(out ReadOnlyMemory<byte> message))
                {
                    Deliver(message.Span);
                }
            }
        }

        private void Transmit()
        {
            while (_link.CanSend)
            {
                if (!_zmtp.TryTakeOutgoing(out byte[] frame) && !TakeRequest(out frame))
                {
                    return;
                }
                _link.Send(frame);
            }
        }

        private bool TakeRequest(out byte[] frame)
        {
            frame = Array.Empty<byte>();
            lock (_guard)
            {
                return _zmtp.IsOpen && _outbox.TryTake(out frame);
            }
        }

        private void Deliver(ReadOnlySpan<byte> message)
        {
            if (Event.TryDelta(message, out long id, out Piece delta))
            {
                Find(id, false)?.Take(delta);
                return;
            }
            Event told = Event.Read(message);
            if (told.Id == 0)
            {
                Notice(told);
                return;
            }
            switch (told.Ev)
            {
                case "ok":
                case "done": Find(told.Id, true)?.End(told.Fields); break;
                case "error": Find(told.Id, true)?.Fail(NpcException.FromWire(told.Fields)); break;
                case "mood": Find(told.Id, false)?.Take(new Piece(told.Fields.Text("mood"), null, "")); break;
                case "act": Find(told.Id, false)?.Take(new Piece(null, told.Fields.Text("action"), "")); break;
                case "delta": Find(told.Id, false)?.Take(new Piece(null, null, told.Fields.Text("text"))); break;
            }
        }

        private void Notice(Event told)
        {
            if (told.Ev == "ping")
            {
                Ping();
            }
            else if (told.Ev == "bye" && told.Fields.TextOr("reason", "") == "taken_over")
            {
                throw NpcException.Lost($"another client took over the Session `{_session}`");
            }
        }

        private void Ping() => Send(Requests.Bare("ping"), Unheard.Instance);

        private Pending? Find(long id, bool last)
        {
            lock (_guard)
            {
                _open.TryGetValue(id, out Pending? pending);
                if (last)
                {
                    _open.Remove(id);
                }
                return pending;
            }
        }

        /// <summary>Asks a silent daemon whether it lives; three times as silent and it is gone.</summary>
        private void Beat()
        {
            long now = Now;
            if (!Greeting.IsCompleted)
            {
                if (now > _hurry)
                {
                    throw NpcException.Lost("the daemon did not answer `hello` in time");
                }
                return;
            }
            double silence = 1000 * (_hello?.HeartbeatSeconds ?? 0);
            bool asked = _askedAt > _heardAt;
            if (silence > 0 && asked && now - _askedAt > 2 * silence)
            {
                throw NpcException.Lost($"the daemon was silent for {now - _heardAt} ms");
            }
            if (silence > 0 && !asked && now - _heardAt > silence)
            {
                _askedAt = now;
                Ping();
            }
        }

        private void Lose(NpcException why)
        {
            List<Pending> left;
            lock (_guard)
            {
                _why = why;
                left = new List<Pending>(_open.Values);
                _open.Clear();
            }
            _greeting.Fail(why);
            foreach (Pending pending in left)
            {
                pending.Fail(why);
            }
            _lost.TrySetResult(why);
        }
    }
}

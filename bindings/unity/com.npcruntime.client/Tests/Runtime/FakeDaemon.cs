#nullable enable
using System;
using System.Collections.Concurrent;
using System.Collections.Generic;
using System.IO;
using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Threading;
using NpcRuntime.Wire;

namespace NpcRuntime.Tests
{
    /// <summary>The daemon's side of the wire in a few lines: shakes hands, answers `hello`, and otherwise does what a test says.</summary>
    internal sealed class FakeDaemon : IDisposable
    {
        internal const string Key = "sesame";
        private readonly TcpListener _listener = new TcpListener(IPAddress.Loopback, 0);
        private readonly Thread _thread;
        private readonly ConcurrentDictionary<TcpClient, bool> _clients = new ConcurrentDictionary<TcpClient, bool>();
        private TcpClient? _client;

        internal FakeDaemon()
        {
            _listener.Start();
            _thread = new Thread(Accept) { IsBackground = true };
            _thread.Start();
        }

        internal string Endpoint => $"tcp://127.0.0.1:{((IPEndPoint)_listener.LocalEndpoint).Port}";

        /// <summary>Requests but for `hello`, in the order in which they came.</summary>
        internal BlockingCollection<Dictionary<string, object?>> Requests { get; } = new BlockingCollection<Dictionary<string, object?>>();

        internal double HeartbeatSeconds { get; set; }

        internal long MaxFrameBytes { get; set; } = 1 << 26;

        internal int Greeted { get; private set; }

        /// <summary>Answers `hello` with this error when set.</summary>
        internal string? Refusal { get; set; }

        /// <summary>Whether it has lost what earlier connections left, as a new daemon has.</summary>
        internal bool Forgets { get; set; }

        /// <summary>Whether requests are read at all.</summary>
        internal ManualResetEventSlim Reads { get; } = new ManualResetEventSlim(true);

        public void Dispose()
        {
            Reads.Set();
            _listener.Stop();
            foreach (TcpClient client in _clients.Keys)
            {
                client.Close();
            }
            _thread.Join();
        }

        /// <summary>Ends the connection without a word.</summary>
        internal void HangUp() => _client!.Close();

        /// <summary>The next request; fails the test when none comes.</summary>
        internal Dictionary<string, object?> Next() =>
            Requests.TryTake(out Dictionary<string, object?> request, 20_000) ? request : throw new TimeoutException("no request came");

        internal void Answer(Dictionary<string, object?> request, string ev, params (string Name, object? Value)[] fields) =>
            Answer((long)request["id"]!, ev, fields);

        internal void Answer(long id, string ev, params (string Name, object? Value)[] fields)
        {
            var body = new Dictionary<string, object?> { ["id"] = id, ["ev"] = ev };
            foreach ((string name, object? value) in fields)
            {
                body[name] = value;
            }
            SendRaw(Zmtp.Message(MsgPackWriter.Pack(body)));
        }

        internal void Done(Dictionary<string, object?> request, string text, string finish = "end") => Answer(
            request,
            "done",
            ("npc", request["npc"]),
            ("mood", "happy"),
            ("action", null),
            ("text", text),
            ("finish", finish),
            ("turn", 0),
            ("seed", 7),
            ("tokens", new Dictionary<string, object?> { ["read"] = 1, ["spoken"] = 2, ["reread"] = 0 }),
            ("ms", new Dictionary<string, object?> { ["queued"] = 0.0, ["first"] = 1.5, ["total"] = 2 }));

        internal void SendRaw(byte[] bytes) => _client!.GetStream().Write(bytes, 0, bytes.Length);

        private static byte[] Command(string name, string rest = "")
        {
            byte[] text = Encoding.ASCII.GetBytes(rest);
            var frame = new byte[3 + name.Length + text.Length];
            frame[0] = 4;
            frame[1] = (byte)(frame.Length - 2);
            frame[2] = (byte)name.Length;
            Encoding.ASCII.GetBytes(name).CopyTo(frame, 3);
            text.CopyTo(frame, 3 + name.Length);
            return frame;
        }

        private static byte[] Exactly(Stream stream, int count)
        {
            var bytes = new byte[count];
            for (int have = 0; have < count;)
            {
                int got = stream.Read(bytes, have, count - have);
                have += got > 0 ? got : throw new EndOfStreamException();
            }
            return bytes;
        }

        private static byte[] Frame(Stream stream)
        {
            byte[] head = Exactly(stream, 2);
            int size = head[1];
            if ((head[0] & 2) != 0)
            {
                byte[] rest = Exactly(stream, 7);
                size = (rest[3] << 24) | (rest[4] << 16) | (rest[5] << 8) | rest[6];
            }
            return Exactly(stream, size);
        }

        private void Accept()
        {
            try
            {
                while (true)
                {
                    TcpClient client = _listener.AcceptTcpClient();
                    _clients[client] = true;
                    new Thread(() => Serve(client)) { IsBackground = true }.Start();
                }
            }
            catch (Exception error) when (error is SocketException || error is ObjectDisposedException || error is InvalidOperationException)
            {
                // stopped
            }
        }

        private void Serve(TcpClient client)
        {
            try
            {
                NetworkStream stream = client.GetStream();
                Exactly(stream, 64);
                byte[] greeting = Zmtp.Greeting();
                stream.Write(greeting, 0, greeting.Length);
                bool welcome = Encoding.ASCII.GetString(Frame(stream)) == $"\u0005HELLO\u0003npc{(char)Key.Length}{Key}";
                Write(stream, welcome ? Command("WELCOME") : Command("ERROR", "\u0003400"));
                Frame(stream);
                Write(stream, Command("READY", "\u000bSocket-Type\0\0\0\u0006ROUTER"));
                _client = client;
                while (true)
                {
                    Reads.Wait();
                    Take((Dictionary<string, object?>)MsgPackReader.Unpack(Frame(stream))!);
                }
            }
            catch (Exception error) when (error is IOException || error is ObjectDisposedException || error is InvalidOperationException)
            {
                // the client has gone
            }
        }

        private static void Write(Stream stream, byte[] bytes) => stream.Write(bytes, 0, bytes.Length);

        private void Take(Dictionary<string, object?> request)
        {
            if ((string)request["op"]! != "hello")
            {
                Requests.Add(request);
                return;
            }
            Greeted++;
            if (Refusal != null)
            {
                Answer(request, "error", ("code", Refusal), ("text", "no"), ("hint", "try"), ("retry", false));
                return;
            }
            Answer(
                request,
                "ok",
                ("version", "0"),
                ("bundle", new Dictionary<string, object?> { ["name"] = "none", ["hash"] = "00" }),
                ("backend", "fake"),
                ("session", request.TryGetValue("session", out object? name) ? name : "~1"),
                ("resumed", Greeted > 1 && !Forgets),
                ("moods", new[] { "neutral" }),
                ("actions", new[] { "give" }),
                ("heartbeat_s", HeartbeatSeconds),
                ("limits", new Dictionary<string, object?> { ["max_frame_bytes"] = MaxFrameBytes, ["max_text_chars"] = 4096, ["max_queued"] = 256 }));
        }
    }
}

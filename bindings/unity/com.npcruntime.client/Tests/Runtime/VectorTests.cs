#nullable enable
using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using NpcRuntime.Wire;
using NUnit.Framework;

namespace NpcRuntime.Tests
{
    /// <summary>The golden frames that the clients of every language are held to (bindings/vectors/frames.json).</summary>
    [TestFixture]
    public class VectorTests
    {
        private Dictionary<string, object?> _frames = null!;

        internal static byte[] Bytes(object? hex)
        {
            var text = (string)hex!;
            return Enumerable.Range(0, text.Length / 2).Select(i => Convert.ToByte(text.Substring(2 * i, 2), 16)).ToArray();
        }

        internal static string Hex(byte[] bytes) => BitConverter.ToString(bytes).Replace("-", "").ToLowerInvariant();

        [SetUp]
        public void ReadFrames()
        {
            string? folder = Environment.GetEnvironmentVariable("NPC_RUNTIME_VECTORS");
            if (folder == null)
            {
                Assert.Ignore("NPC_RUNTIME_VECTORS must name bindings/vectors of a checkout");
            }
            _frames = (Dictionary<string, object?>)Json.Parse(File.ReadAllText(Path.Combine(folder!, "frames.json")))!;
        }

        [Test]
        public void EveryValueIsRead()
        {
            foreach (Dictionary<string, object?> item in Group("msgpack"))
            {
                Assert.That(Same(MsgPackReader.Unpack(Bytes(item["hex"])), item["value"]), Is.True, (string)item["name"]!);
            }
        }

        [Test]
        public void EveryValueIsWrittenInItsShortestForm()
        {
            string[] others = { "float 32", "wider form", "as int 64", "as str 32", "array 32", "map 32", "bin 32" };
            foreach (Dictionary<string, object?> item in Group("msgpack"))
            {
                var name = (string)item["name"]!;
                if (!others.Any(name.Contains))
                {
                    Assert.That(Hex(MsgPackWriter.Pack(Plain(item["value"]))), Is.EqualTo(item["hex"]), name);
                }
            }
        }

        [Test]
        public void EveryEventIsRead()
        {
            foreach (Dictionary<string, object?> item in Group("events"))
            {
                byte[] frame = Bytes(item["hex"]);
                var body = (Dictionary<string, object?>)item["body"]!;
                Event told = Event.Read(frame);
                Assert.That(told.Id, Is.EqualTo(body["id"]));
                Assert.That(told.Ev, Is.EqualTo(body["ev"]));
                Assert.That(Same(told.Fields.Map, body), Is.True, told.Ev);
                Assert.That(Event.TryDelta(frame, out long id, out Piece piece), Is.EqualTo(told.Ev == "delta"));
                Assert.That(told.Ev == "delta" ? piece.Text : null, Is.EqualTo(told.Ev == "delta" ? body["text"] : null));
            }
        }

        [Test]
        public void ResultsAreReadFromEvents()
        {
            Fields Of(string ev, string has) => new Fields(
                (Dictionary<string, object?>)Plain(Group("events").Select(item => (Dictionary<string, object?>)item["body"]!)
                    .First(body => (string)body["ev"]! == ev && body.ContainsKey(has)))!);

            var reply = new Reply(Of("done", "text"));
            Assert.That((reply.Npc, reply.Mood, reply.Action, reply.Text), Is.EqualTo(("marta", "happy", "give", "Here you are.")));
            Assert.That((reply.Turn, reply.TokensSpoken, reply.FirstMs), Is.EqualTo((3, 8, 12.5)));
            Assert.That(new Spawned(Of("ok", "opening")).Opening!.Text, Is.EqualTo("Come in!"));
            Assert.That(new Chosen(Of("ok", "scores")).Scores, Is.EqualTo(new[] { -2.5, -1.25 }));
            Assert.That(new Observed(Of("ok", "failed")).Failed["tom"], Is.EqualTo("budget_exceeded"));
            Assert.That(NpcException.FromWire(Of("error", "code")).Kind, Is.EqualTo(NpcErrorCode.UnknownNpc));
        }

        [Test]
        public void EveryRequestIsWrittenByteForByte()
        {
            var table = new Dictionary<string, object?>
            {
                ["name"] = "Marta", ["role"] = "innkeeper", ["moods"] = new[] { "neutral", "happy" }, ["knows"] = new[] { "the road north is shut" },
            };
            var say = new SayOptions
            {
                Kind = "event", Moods = new[] { "afraid" }, Actions = new string[0], Lane = "background", DeadlineMs = 1500, Pace = 0,
                Seed = 7, Temperature = 0, TopP = 0.5, Repetition = 0.25, MaxTokens = 32,
            };
            var plain = new SayOptions();
            byte[] data = { 0, 1, 2, 3, 4, 5, 6, 7 };
            const long Most = (1L << 53) - 1;
            var mine = new[]
            {
                Requests.Hello("example 0.1", "castle"),
                Requests.Hello("", ""),
                Requests.Bare("ping"),
                Requests.Spawn("marta", "innkeeper", null, false),
                Requests.Spawn("marta", table, Most, true),
                Requests.Say("marta", "Good evening! Ein Bier, bitte: é € 𝄞", plain, true),
                Requests.Say("marta", "A dragon lands on the roof.", say, false),
                Requests.Observe(new[] { "marta", "tom" }, "The bells ring.", "background"),
                Requests.Choose("marta", new[] { "Yes.", "No." }, "Is there a room?", new[] { "happy", "sad" }, "player"),
                Requests.Cancel("marta", null),
                Requests.Cancel("marta", 12),
                Requests.Of("snapshot", "marta"),
                Requests.Restore("marta", data, true, true),
                Requests.Fork("marta", "marta's dream", false),
                Requests.Rewind("marta", 2),
                Requests.Save("/saves/one.npcsave", null),
                Requests.Load("/saves/one.npcsave", new[] { "marta" }, true, false),
                Requests.Of("drop", "marta"),
                Requests.Bare("list"),
                Requests.Bare("stats"),
                Requests.Bye(false),
                Requests.Bare("shutdown"),
            };
            Dictionary<string, object?>[] golden = Group("requests").ToArray();
            Assert.That(mine.Length, Is.EqualTo(golden.Length));
            for (int i = 0; i < mine.Length; i++)
            {
                mine[i]["id"] = ((Dictionary<string, object?>)golden[i]["body"]!)["id"];
                Assert.That(Hex(MsgPackWriter.Pack(mine[i])), Is.EqualTo(golden[i]["hex"]), (string)mine[i]["op"]!);
            }
        }

        [Test]
        public void TheHandshakeIsThatOfTheVectors()
        {
            Dictionary<string, object?>[] steps = Group("zmtp").ToArray();
            byte[] Step(string name) => Bytes(steps.First(step => (string)step["name"]! == name)["hex"]);
            var zmtp = new Zmtp((string)_frames["key"]!, 1 << 20);
            Assert.That(Take(zmtp), Is.EqualTo(Step("greeting, client that knows PING")));
            foreach ((string theirs, string mine) in new[] { ("greeting, daemon", "HELLO"), ("WELCOME", "INITIATE") })
            {
                zmtp.Feed(Step(theirs));
                Assert.That(zmtp.TryNext(out _), Is.False);
                Assert.That(Take(zmtp), Is.EqualTo(Step(mine)), mine);
            }
            zmtp.Feed(Step("READY"));
            Assert.That(zmtp.TryNext(out _), Is.False);
            Assert.That(zmtp.IsOpen, Is.True);
            foreach ((string theirs, string mine) in new[] { ("PING", "PONG"), ("PING with a context", "PONG with that context") })
            {
                zmtp.Feed(Step(theirs));
                Assert.That(zmtp.TryNext(out _), Is.False);
                Assert.That(Take(zmtp), Is.EqualTo(Step(mine)), mine);
            }
            foreach (string name in new[] { "message, short frame", "message, long frame" })
            {
                zmtp.Feed(Step(name));
                Assert.That(zmtp.TryNext(out ReadOnlyMemory<byte> body), Is.True);
                Assert.That(Zmtp.Message(body.ToArray()), Is.EqualTo(Step(name)));
            }
        }

        [TestCase("ERROR, wrong key")]
        [TestCase("ERROR as libzmq 4.3 misspells it")]
        public void ARefusedKeyIsTold(string name)
        {
            var zmtp = new Zmtp("x", 1 << 20);
            zmtp.Feed(Zmtp.Greeting());
            zmtp.Feed(Bytes(Group("zmtp").First(step => (string)step["name"]! == name)["hex"]));
            NpcException error = Assert.Throws<NpcException>(() => zmtp.TryNext(out _));
            Assert.That(error.Kind, Is.EqualTo(NpcErrorCode.WrongKey));
            Assert.That(error.Message, Contains.Substring("400"));
        }

        [Test]
        public void BrokenFramesAreRefused()
        {
            foreach (Dictionary<string, object?> item in Group("invalid").Where(item => (string)item["code"]! == "bad_frame"))
            {
                NpcException error = Assert.Throws<NpcException>(() => Event.Read(Bytes(item["hex"])));
                Assert.That(error.Kind, Is.EqualTo(NpcErrorCode.BadFrame), (string)item["name"]!);
            }
        }

        private static byte[] Take(Zmtp zmtp) => zmtp.TryTakeOutgoing(out byte[] bytes) ? bytes : Array.Empty<byte>();

        /// <summary>A value of frames.json as the codec has it: {"$bin": hex} is binary.</summary>
        private static object? Plain(object? value)
        {
            if (value is Dictionary<string, object?> map)
            {
                return map.Count == 1 && map.ContainsKey("$bin")
                    ? (object)Bytes(map["$bin"])
                    : map.ToDictionary(entry => entry.Key, entry => Plain(entry.Value));
            }
            return value is List<object?> list ? list.Select(Plain).ToList() : value;
        }

        private static bool Same(object? value, object? shown) => Hex(MsgPackWriter.Pack(value)) == Hex(MsgPackWriter.Pack(Plain(shown)));

        private IEnumerable<Dictionary<string, object?>> Group(string name) => ((List<object?>)_frames[name]!).Cast<Dictionary<string, object?>>();
    }
}

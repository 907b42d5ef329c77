#nullable enable
using System;
using System.Collections.Generic;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;
using NUnit.Framework;

namespace NpcRuntime.Tests
{
    /// <summary>The verbs against a daemon of a few lines.</summary>
    [TestFixture]
    public class ClientTests
    {
        private FakeDaemon _daemon = null!;
        private NpcClient _client = null!;

        [SetUp]
        public void Connect()
        {
            _daemon = new FakeDaemon();
            _client = NpcClient.ConnectAsync(_daemon.Endpoint, FakeDaemon.Key, "castle").Get();
        }

        [TearDown]
        public void Leave()
        {
            _daemon.Dispose();
            _client.Dispose();
        }

        [Test]
        public void HelloIsTold()
        {
            Assert.That((_client.Hello.Backend, _client.Hello.Session, _client.Hello.Resumed), Is.EqualTo(("fake", "castle", false)));
            Assert.That(_client.IsConnected, Is.True);
        }

        [Test]
        public void SayAsksForAWholeReply()
        {
            Task<Reply> reply = _client.SayAsync("marta", "hello", new SayOptions { Seed = 3 });
            Dictionary<string, object?> asked = _daemon.Next();
            Assert.That(
                new[] { asked["op"], asked["npc"], asked["text"], asked["stream"], asked["seed"] },
                Is.EqualTo(new object[] { "say", "marta", "hello", false, 3L }));
            _daemon.Done(asked, "Welcome.");
            Assert.That(reply.Get().Text, Is.EqualTo("Welcome."));
        }

        [Test]
        public void AStreamGivesPiecesInOrderThenTheReply()
        {
            ReplyStream stream = _client.Stream("marta", "hello");
            Task<List<Piece>> all = All(stream);
            Dictionary<string, object?> asked = _daemon.Next();
            Assert.That(asked.ContainsKey("stream"), Is.False);
            Speak(asked, "Wel", "come 𝄞");
            _daemon.Done(asked, "Welcome 𝄞");
            Assert.That(all.Get().Select(piece => (piece.Mood, piece.Action, piece.Text)), Is.EqualTo(new (string?, string?, string)[]
            {
                ("happy", null, ""), (null, "give", ""), (null, null, "Wel"), (null, null, "come 𝄞"),
            }));
            Assert.That(stream.Reply.Get().Text, Is.EqualTo("Welcome 𝄞"));
            Assert.That(stream.Heard, Is.EqualTo(9), "a character outside the BMP counts once");
        }

        [Test]
        public void APolledStreamIsCutAtWhatWasHeard()
        {
            ReplyStream stream = _client.Stream("marta", "hello");
            Dictionary<string, object?> asked = _daemon.Next();
            Speak(asked, "One. ", "Two. ");
            Piece piece = default;
            Waiting.Until(() => stream.TryRead(out piece) && piece.Text == "One. ");
            stream.Cancel();
            stream.Cancel();
            Dictionary<string, object?> cut = _daemon.Next();
            Assert.That(new[] { cut["op"], cut["npc"], cut["heard"] }, Is.EqualTo(new object[] { "cancel", "marta", 5L }));
            _daemon.Done(asked, "One. ", "cancelled");
            Assert.That(stream.Reply.Get().Finish, Is.EqualTo("cancelled"));
        }

        [Test]
        public void ATokenOfTheLoopCutsAndEndsIt()
        {
            using var cancel = new CancellationTokenSource();
            ReplyStream stream = _client.Stream("marta", "hello");
            Task<List<Piece>> all = All(stream, cancel.Token);
            Dictionary<string, object?> asked = _daemon.Next();
            Speak(asked, "One. ");
            Waiting.Until(() => stream.Heard == 5);
            cancel.Cancel();
            Assert.Throws(Is.InstanceOf<OperationCanceledException>(), () => all.Get());
            Assert.That(_daemon.Next()["heard"], Is.EqualTo(5L));
        }

        [Test]
        public void ATokenOfTheVerbCutsAndLetsTheLoopEnd()
        {
            using var cancel = new CancellationTokenSource();
            ReplyStream stream = _client.Stream("marta", "hello", null, cancel.Token);
            Task<List<Piece>> all = All(stream);
            Dictionary<string, object?> asked = _daemon.Next();
            cancel.Cancel();
            Assert.That(_daemon.Next()["op"], Is.EqualTo("cancel"));
            _daemon.Done(asked, "", "cancelled");
            Assert.That(all.Get(), Is.Empty);
            Assert.That(stream.Reply.Get().Finish, Is.EqualTo("cancelled"));
        }

        [Test]
        public void ATokenCutsASayAndEndsTheWaiting()
        {
            using var cancel = new CancellationTokenSource();
            Task<Reply> reply = _client.SayAsync("marta", "hello", null, cancel.Token);
            _daemon.Next();
            cancel.Cancel();
            Assert.Throws(Is.InstanceOf<OperationCanceledException>(), () => reply.Get());
            Assert.That(_daemon.Next()["op"], Is.EqualTo("cancel"));
        }

        [Test]
        public void ATokenCancelledBeforeSendsNothing()
        {
            Assert.Throws(Is.InstanceOf<OperationCanceledException>(), () => _client.SayAsync("a", "b", null, new CancellationToken(true)).Get());
            Task pong = _client.PingAsync();
            Dictionary<string, object?> first = _daemon.Next();
            Assert.That(first["op"], Is.EqualTo("ping"));
            _daemon.Answer(first, "ok");
            pong.End();
        }

        [Test]
        public void AnErrorIsTyped()
        {
            Task<Spawned> spawned = _client.SpawnAsync("marta", "innkeeper");
            _daemon.Answer(_daemon.Next(), "error", ("code", "npc_exists"), ("text", "taken"), ("hint", "choose"), ("retry", false));
            NpcException error = spawned.Failure();
            Assert.That((error.Kind, error.Code, error.Message, error.Hint), Is.EqualTo((NpcErrorCode.NpcExists, "npc_exists", "taken", "choose")));
        }

        [Test]
        public void ACodeOfALaterVersionKeepsItsName()
        {
            Task drop = _client.DropAsync("marta");
            _daemon.Answer(_daemon.Next(), "error", ("code", "moon_full"), ("text", "t"), ("retry", true));
            NpcException error = drop.Failure();
            Assert.That((error.Kind, error.Code, error.Retry), Is.EqualTo((NpcErrorCode.Internal, "moon_full", true)));
        }

        [Test]
        public void AnAnswerOfAnotherShapeFailsThatRequestOnly()
        {
            Task<Reply> reply = _client.SayAsync("marta", "hello");
            _daemon.Answer(_daemon.Next(), "done", ("npc", 5));
            Assert.That(reply.Failure().Kind, Is.EqualTo(NpcErrorCode.BadFrame));
            Assert.That(_client.IsConnected, Is.True);
        }

        [Test]
        public void ALostConnectionFailsWhatIsUnderWayAndAllThatFollows()
        {
            Task<Reply> reply = _client.SayAsync("marta", "hello");
            ReplyStream stream = _client.Stream("marta", "and?");
            Task<List<Piece>> pieces = All(stream);
            _daemon.Next();
            _daemon.Next();
            _daemon.HangUp();
            Assert.That(reply.Failure().Kind, Is.EqualTo(NpcErrorCode.ConnectionLost));
            Assert.That(pieces.Failure().Retry, Is.True);
            Assert.That(_client.WhenLost.Get().Kind, Is.EqualTo(NpcErrorCode.ConnectionLost));
            Assert.That(_client.PingAsync().Failure().Kind, Is.EqualTo(NpcErrorCode.ConnectionLost));
            Assert.That(_client.IsConnected, Is.False);
        }

        [Test]
        public void ReconnectingReturnsToTheSession()
        {
            _daemon.HangUp();
            _client.WhenLost.End();
            _client.ReconnectAsync().End();
            Assert.That((_client.Hello.Session, _client.Hello.Resumed), Is.EqualTo(("castle", true)));
            Task pong = _client.PingAsync();
            _daemon.Answer(_daemon.Next(), "ok");
            pong.End();
        }

        [Test]
        public void ADaemonTakenOverIsLost()
        {
            _daemon.Answer(0, "bye", ("reason", "taken_over"));
            Assert.That(_client.WhenLost.Get().Message, Contains.Substring("took over"));
        }

        [Test]
        public void APingOfTheDaemonIsAnswered()
        {
            _daemon.Answer(0, "ping");
            Assert.That(_daemon.Next()["op"], Is.EqualTo("ping"));
        }

        [Test]
        public void GarbageEndsTheConnectionWithATypedError()
        {
            _daemon.SendRaw(new byte[] { 0, 1, 0xC1 });
            Assert.That(_client.WhenLost.Get().Kind, Is.EqualTo(NpcErrorCode.BadFrame));
        }

        [Test]
        public void ASilentDaemonIsAskedThenGivenUp()
        {
            _daemon.HeartbeatSeconds = 0.05;
            using NpcClient client = NpcClient.ConnectAsync(_daemon.Endpoint, FakeDaemon.Key).Get();
            Assert.That(_daemon.Next()["op"], Is.EqualTo("ping"));
            Assert.That(client.WhenLost.Get().Message, Contains.Substring("silent"));
        }

        [Test]
        public void AMessageTooLongIsRefusedHere()
        {
            _daemon.MaxFrameBytes = 1000;
            using NpcClient client = NpcClient.ConnectAsync(_daemon.Endpoint, FakeDaemon.Key).Get();
            Assert.That(client.RestoreAsync("marta", new byte[1000]).Failure().Kind, Is.EqualTo(NpcErrorCode.TooLarge));
            Assert.That(client.IsConnected, Is.True);
        }

        [Test]
        public void ADaemonThatDoesNotReadFillsTheQueueAndNothingElse()
        {
            _daemon.Reads.Reset();
            var data = new byte[1 << 20];
            var asked = new List<Task>();
            for (int i = 0; i < 600 && !asked.Any(task => task.IsFaulted); i++)
            {
                asked.Add(_client.RestoreAsync("marta", data));
            }
            NpcException error = asked.First(task => task.IsFaulted).Failure();
            Assert.That((error.Kind, error.Retry), Is.EqualTo((NpcErrorCode.QueueFull, true)));
            Assert.That(_client.IsConnected, Is.True);
            _daemon.Reads.Set();
            for (int i = 0; i < asked.Count - 1; i++)
            {
                Assert.That(((byte[])_daemon.Next()["data"]!).Length, Is.EqualTo(data.Length));
            }
            _daemon.HangUp();
            Assert.That(asked[0].Failure().Kind, Is.EqualTo(NpcErrorCode.ConnectionLost));
            foreach (Task task in asked)
            {
                Assert.That(task.Failure(), Is.Not.Null);
            }
        }

        [Test]
        public void AReaderWhoLagsLosesNothingAndHoldsLittle()
        {
            ReplyStream stream = _client.Stream("marta", "hello");
            Dictionary<string, object?> asked = _daemon.Next();
            string[] deltas = Enumerable.Range(0, 5000).Select(i => $"{i} ").ToArray();
            Speak(asked, deltas);
            _daemon.Done(asked, string.Concat(deltas));
            stream.Reply.End();
            List<Piece> pieces = All(stream).Get();
            Assert.That(pieces.Count, Is.EqualTo(ReplyStream.MaxPieces + 1));
            Assert.That(string.Concat(pieces.Select(piece => piece.Text)), Is.EqualTo(string.Concat(deltas)));
        }

        [Test]
        public void AnEndlessReplyEndsTheConnection()
        {
            ReplyStream stream = _client.Stream("marta", "hello");
            Dictionary<string, object?> asked = _daemon.Next();
            _daemon.Answer(asked, "delta", ("text", new string('x', ReplyStream.MaxChars)));
            Assert.That(stream.Reply.Failure().Kind, Is.EqualTo(NpcErrorCode.BadFrame));
        }

        [Test]
        public void AStreamIsReadOnce()
        {
            ReplyStream stream = _client.Stream("marta", "hello");
            stream.GetAsyncEnumerator();
            Assert.Throws<InvalidOperationException>(() => stream.GetAsyncEnumerator());
        }

        [Test]
        public void VerbsMayComeFromManyThreads()
        {
            Task<int>[] asked = Enumerable.Range(0, 200).Select(i => Task.Run(() => _client.CancelAsync($"npc{i}"))).ToArray();
            for (int i = 0; i < asked.Length; i++)
            {
                Dictionary<string, object?> request = _daemon.Next();
                _daemon.Answer(request, "ok", ("cancelled", int.Parse(((string)request["npc"]!).Substring(3))));
            }
            Assert.That(Task.WhenAll(asked).Get(), Is.EqualTo(Enumerable.Range(0, 200)));
        }

        [Test]
        public void NothingIsSentAfterLeaving()
        {
            Task leaving = Task.Run(_client.Dispose);
            Dictionary<string, object?> bye = _daemon.Next();
            Assert.That(bye["op"], Is.EqualTo("bye"));
            _daemon.Answer(bye, "ok");
            leaving.End();
            Assert.Throws<ObjectDisposedException>(() => _client.PingAsync().End());
            _client.Dispose();
        }

        [Test]
        public void MissingArgumentsAreAMisuse()
        {
            Assert.Throws<ArgumentNullException>(() => _client.SayAsync(null!, "x").End());
            Assert.Throws<ArgumentNullException>(() => _client.Stream("x", null!));
            Assert.Throws<ArgumentNullException>(() => _client.RestoreAsync("x", null!).End());
        }

        private static async Task<List<Piece>> All(ReplyStream stream, CancellationToken cancellation = default)
        {
            var pieces = new List<Piece>();
            await foreach (Piece piece in stream.WithCancellation(cancellation).ConfigureAwait(false))
            {
                pieces.Add(piece);
            }
            return pieces;
        }

        private void Speak(Dictionary<string, object?> asked, params string[] deltas)
        {
            if (deltas.Length < 100)
            {
                _daemon.Answer(asked, "mood", ("mood", "happy"));
                _daemon.Answer(asked, "act", ("action", "give"));
            }
            foreach (string delta in deltas)
            {
                _daemon.Answer(asked, "delta", ("text", delta));
            }
        }
    }
}

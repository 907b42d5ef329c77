#nullable enable
using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Reflection;
using System.Threading.Tasks;
using NpcRuntime.Editor;
using NUnit.Framework;
using UnityEditor;
using UnityEngine;
using UnityEngine.Events;

namespace NpcRuntime.Tests
{
    /// <summary>The components in a player loop, against a daemon of a few lines.</summary>
    [TestFixture]
    public class ComponentTests
    {
        private FakePlayer _player = null!;
        private FakeDaemon _daemon = null!;
        private NpcRuntimeHost _host = null!;
        private readonly List<string> _told = new List<string>();

        [SetUp]
        public void Play()
        {
            Debug.Logged.Clear();
            _told.Clear();
            _player = new FakePlayer();
            _daemon = new FakeDaemon();
            _host = Host(host => host.Use(_daemon.Endpoint, FakeDaemon.Key));
        }

        [TearDown]
        public void Quit()
        {
            _daemon.Dispose();
            _player.Dispose();
            Assert.That(NpcRuntimeHost.Current == null, Is.True);
        }

        [Test]
        public void ALineIsToldInOrderOnTheMainThread()
        {
            NpcCharacter marta = Marta();
            Task<Reply> reply = marta.SayAsync("Good evening.");
            Spawn();
            Dictionary<string, object?> asked = Next();
            Assert.That(new[] { asked["op"], asked["text"], asked["pace"] }, Is.EqualTo(new object[] { "say", "Good evening.", 0.0 }));
            Speak(asked, "Wel", "come.");
            _daemon.Done(asked, "Welcome.");
            _player.Until(() => reply.IsCompleted);
            Assert.That(string.Join(" ", _told), Is.EqualTo("spawned:Hm. started mood:happy action:give delta:Wel delta:come. finished:Welcome."));
            Assert.That((marta.Mood, marta.IsSpeaking, marta.IsAlive), Is.EqualTo(("happy", false, true)));
        }

        [Test]
        public void LinesSaidAtOnceSpawnOnceAndAreToldOneAfterTheOther()
        {
            NpcCharacter marta = Marta();
            Task<Reply> one = marta.SayAsync("One?"), two = marta.SayAsync("Two?");
            Spawn();
            Dictionary<string, object?> first = Next(), second = Next();
            Speak(second, "B");
            _daemon.Done(second, "B");
            Speak(first, "A");
            _daemon.Done(first, "A");
            _player.Until(() => one.IsCompleted && two.IsCompleted);
            Assert.That(_told.Where(told => told.StartsWith("delta")), Is.EqualTo(new[] { "delta:A", "delta:B" }));
        }

        [Test]
        public void CancelCutsAtWhatTheEventsTold()
        {
            NpcCharacter marta = Marta();
            Task<Reply> reply = marta.SayAsync("Tell me.");
            Spawn();
            Dictionary<string, object?> asked = Next();
            Speak(asked, "One. ");
            _player.Until(() => _told.Contains("delta:One. "));
            marta.Cancel();
            Assert.That(Next()["heard"], Is.EqualTo(5L));
            _daemon.Done(asked, "One.", "cancelled");
            _player.Until(() => reply.IsCompleted);
            Assert.That(reply.Result.Finish, Is.EqualTo("cancelled"));
        }

        [Test]
        public void AnErrorIsToldByEventAndTaskAndAFallbackSpoken()
        {
            NpcCharacter marta = Marta();
            Task<Reply> reply = marta.SayAsync("Hello?");
            Spawn();
            _daemon.Answer(Next(), "error", ("code", "queue_full"), ("text", "full"), ("retry", true));
            _player.Until(() => reply.IsCompleted);
            Assert.That(((NpcException)reply.Exception!.InnerException!).Kind, Is.EqualTo(NpcErrorCode.QueueFull));
            Assert.That(_told.Skip(1), Is.EqualTo(new[] { "delta:Hold that thought.", "finished:Hold that thought.", "failed:queue_full" }));
        }

        [Test]
        public void ACharacterKeptByTheDaemonIsTakenUpAgain()
        {
            NpcCharacter marta = Marta();
            Task spawning = marta.SpawnAsync();
            _daemon.Answer(Next(), "error", ("code", "npc_exists"), ("text", "taken"), ("retry", false));
            Dictionary<string, object?> asked = Next();
            Assert.That(asked["op"], Is.EqualTo("snapshot"));
            _daemon.Answer(asked, "ok", ("data", new byte[] { 1 }));
            _player.Until(() => spawning.IsCompleted);
            Assert.That((marta.IsAlive, spawning.IsFaulted), Is.EqualTo((true, false)));
        }

        [Test]
        public void AfterALossEveryoneComesBackWithTheStateLastHeld()
        {
            NpcCharacter marta = Marta();
            NpcCast.Revival? revival = null;
            _host.Recovered += told => revival = told;
            Task<Reply> reply = marta.SayAsync("Hello?");
            Spawn();
            _daemon.Done(Next(), "Yes.");
            _player.Until(() => reply.IsCompleted);
            Dictionary<string, object?> held = Next();
            Assert.That(held["op"], Is.EqualTo("snapshot"), "a State is held after each Turn");
            _daemon.Answer(held, "ok", ("data", new byte[] { 42 }));
            _player.Until(() => !Holding());
            _daemon.Forgets = true;
            _daemon.HangUp();
            Dictionary<string, object?> back = Next();
            Assert.That(new[] { back["op"], back["npc"], ((byte[])back["data"]!)[0] }, Is.EqualTo(new object[] { "restore", "Marta", (byte)42 }));
            Info(back);
            _player.Until(() => _host.Stage == NpcRuntimeHost.HostStage.Ready && revival != null);
            Assert.That(revival!.Restored, Is.EqualTo(new[] { "Marta" }));
            Assert.That(Debug.Logged.Count, Is.EqualTo(1));
        }

        [Test]
        public void ADaemonThatIsGoneIsGivenUpWithAReason()
        {
            _player.Until(() => _host.Stage == NpcRuntimeHost.HostStage.Ready);
            NpcException? why = null;
            _host.Failed += error => why = error;
            _daemon.Dispose();
            _player.Until(() => _host.Stage == NpcRuntimeHost.HostStage.Failed);
            Assert.That(why!.Kind, Is.EqualTo(NpcErrorCode.ConnectionLost));
            Task<NpcClient> ready = _host.ReadyAsync();
            Assert.That(ready.IsFaulted, Is.True);
        }

        [Test]
        public void SaveAndLoadGoThroughBytes()
        {
            NpcCharacter marta = Marta();
            Task spawning = marta.SpawnAsync();
            Spawn();
            _player.Until(() => spawning.IsCompleted);
            Task<byte[]> saving = _host.SaveAsync();
            _daemon.Answer(Next(), "ok", ("data", new byte[] { 7 }));
            _player.Until(() => saving.IsCompleted);
            Task loading = _host.LoadAsync(saving.Result);
            Dictionary<string, object?> asked = Next();
            Assert.That(((byte[])asked["data"]!)[0], Is.EqualTo(7));
            Info(asked);
            _player.Until(() => loading.IsCompleted);
            Assert.That(loading.IsFaulted, Is.False);
        }

        [Test]
        public void TheOtherVerbsReachTheDaemon()
        {
            NpcCharacter marta = Marta();
            Set(_host, "holdStates", false);
            Verb(marta.ObserveAsync("Bells."), "observe", asked => _daemon.Answer(
                asked, "ok", ("npcs", new[] { "Marta" }), ("failed", new Dictionary<string, object?>()), ("tokens", Tokens())), true);
            Verb(marta.ChooseAsync(new[] { "Yes.", "No." }), "choose", asked => _daemon.Answer(
                asked, "ok", ("npc", "Marta"), ("index", 0), ("text", "Yes."), ("mood", "sad"), ("scores", new[] { -1.0, -2.0 })));
            Verb(marta.RewindAsync(), "rewind", Info);
            Verb(marta.SnapshotAsync(), "snapshot", asked => _daemon.Answer(asked, "ok", ("data", new byte[] { 1 })));
            Verb(marta.RestoreAsync(new byte[] { 1 }), "restore", Info);
            Verb(marta.DropAsync(), "drop", asked => _daemon.Answer(asked, "ok"));
            Assert.That(marta.IsAlive, Is.False);
        }

        [Test]
        public void ASecondHostIsRemoved()
        {
            NpcRuntimeHost second = new GameObject("second").AddComponent<NpcRuntimeHost>();
            _player.Frame();
            Assert.That((second == null, NpcRuntimeHost.Current == _host), Is.EqualTo((true, true)));
            Assert.That(Debug.Logged.Single(), Contains.Substring("second NpcRuntimeHost"));
        }

        [Test]
        public void ADomainReloadEndsTheConnection()
        {
            _player.Until(() => _host.Stage == NpcRuntimeHost.HostStage.Ready);
            System.Runtime.CompilerServices.RuntimeHelpers.RunClassConstructor(typeof(NpcPersonaEditor).Assembly.GetType("NpcRuntime.Editor.DomainReload")!.TypeHandle);
            AnswerBye();
            AssemblyReloadEvents.Reload();
            Assert.That(_host.Stage, Is.EqualTo(NpcRuntimeHost.HostStage.Off));
            Assert.That(_host.Client, Is.Null);
        }

        [Test]
        public void DisablingStopsAndEnablingBeginsAgain()
        {
            _player.Until(() => _host.Stage == NpcRuntimeHost.HostStage.Ready);
            AnswerBye();
            _host.enabled = false;
            Assert.That(_host.Stage, Is.EqualTo(NpcRuntimeHost.HostStage.Off));
            _host.enabled = true;
            _player.Until(() => _host.Stage == NpcRuntimeHost.HostStage.Ready);
            Assert.That(_daemon.Greeted, Is.EqualTo(2));
        }

        [Test]
        public void AReplyUnderWayFailsWhenTheHostStops()
        {
            NpcCharacter marta = Marta();
            Task<Reply> reply = marta.SayAsync("Hello?");
            Spawn();
            Next();
            AnswerBye();
            _host.Stop();
            Assert.That(((NpcException)reply.Exception!.InnerException!).Kind, Is.EqualTo(NpcErrorCode.ConnectionLost));
            Assert.That(marta.IsSpeaking, Is.False);
        }

        [Test]
        public void ADestroyedCharacterIsCutAndItsTaskCancelled()
        {
            NpcCharacter marta = Marta();
            Set(marta, "forgetWhenDestroyed", true);
            Task<Reply> reply = marta.SayAsync("Hello?");
            Spawn();
            Next();
            UnityEngine.Object.Destroy(marta);
            Assert.That(Next()["op"], Is.EqualTo("cancel"));
            Assert.That(Next()["op"], Is.EqualTo("drop"));
            Assert.That(reply.IsCanceled, Is.True);
        }

        [Test]
        public void WithoutAHostACharacterSaysSo()
        {
            _player.Quit();
            NpcCharacter marta = Marta();
            Task<Reply> reply = marta.SayAsync("Hello?");
            _player.Until(() => reply.IsCompleted);
            Assert.That(((NpcException)reply.Exception!.InnerException!).Kind, Is.EqualTo(NpcErrorCode.NoRuntime));
        }

        [Test]
        public void AMissingProgramIsGivenUpAtOnce()
        {
            _player.Quit();
            NpcRuntimeHost host = Host(one => Set(one, "command", new[] { "no-such-program-anywhere" }));
            _player.Until(() => host.Stage == NpcRuntimeHost.HostStage.Failed);
            Assert.That(host.Trouble!.Kind, Is.EqualTo(NpcErrorCode.DaemonMissing));
        }

        [Test]
        public void ARelativeCommandIsLookedForInStreamingAssets()
        {
            _player.Quit();
            NpcRuntimeHost host = Host(one => Set(one, "command", new[] { "daemon/npc-runtime" }));
            _player.Until(() => host.Stage == NpcRuntimeHost.HostStage.Failed);
            Assert.That(host.Trouble!.Message, Contains.Substring("/StreamingAssets/daemon/npc-runtime"));
        }

        [Test]
        public void AnIdleFrameAllocatesNothing()
        {
            NpcCharacter marta = Marta();
            Task spawning = marta.SpawnAsync();
            Spawn();
            _player.Until(() => spawning.IsCompleted);
            var update = (Action)Delegate.CreateDelegate(
                typeof(Action), _host, typeof(NpcRuntimeHost).GetMethod("Update", BindingFlags.Instance | BindingFlags.NonPublic)!);
            update();
            long before = GC.GetAllocatedBytesForCurrentThread();
            for (int frame = 0; frame < 1000; frame++)
            {
                update();
            }
            Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.EqualTo(0));
        }

        [Test]
        public void InspectorsShowWhatIsWrongAndTryALine()
        {
            NpcCharacter marta = Marta();
            EditorGUILayout.Shown.Clear();
            new NpcCharacterEditor { target = marta }.OnInspectorGUI();
            Assert.That(EditorGUILayout.Shown, Is.EqualTo(new[] { "Alive: no" }));
            marta.Persona = null;
            GUILayout.Pressed.Add("Say");
            new NpcCharacterEditor { target = marta }.OnInspectorGUI();
            Assert.That(EditorGUILayout.Shown[1], Contains.Substring("Give this character a persona"));
            _player.Until(() => _told.Any(told => told == "failed:bad_input"));
            _player.Until(() => _host.Stage == NpcRuntimeHost.HostStage.Ready);
            new NpcRuntimeHostEditor { target = _host }.OnInspectorGUI();
            Assert.That(EditorGUILayout.Shown.Last(), Is.EqualTo("Daemon: 0, none, fake"));
        }

        [Test]
        public void AFileIsImportedByTheInspector()
        {
            var persona = ScriptableObject.CreateInstance<NpcPersona>();
            string path = Path.GetTempFileName();
            File.WriteAllText(path, "name = \"Marta\"\nrole = \"smith\"\n");
            EditorUtility.NextFile = path;
            GUILayout.Pressed.Add("Import TOML…");
            new NpcPersonaEditor { target = persona }.OnInspectorGUI();
            File.WriteAllText(path, "name = ");
            GUILayout.Pressed.Add("Import TOML…");
            new NpcPersonaEditor { target = persona }.OnInspectorGUI();
            File.Delete(path);
            Assert.That(persona.personaName, Is.EqualTo("Marta"));
            Assert.That(EditorUtility.Dialogs.Single(), Contains.Substring("line 1"));
        }

        private static void Set(object component, string field, object value) =>
            component.GetType().GetField(field, BindingFlags.Instance | BindingFlags.NonPublic)!.SetValue(component, value);

        private static Dictionary<string, object?> Tokens() => new Dictionary<string, object?> { ["read"] = 1 };

        private static NpcRuntimeHost Host(Action<NpcRuntimeHost> prepare)
        {
            var thing = new GameObject("host");
            thing.SetActive(false);
            NpcRuntimeHost host = thing.AddComponent<NpcRuntimeHost>();
            prepare(host);
            thing.SetActive(true);
            return host;
        }

        private bool Holding() => (bool)typeof(NpcRuntimeHost).GetField("_holding", BindingFlags.Instance | BindingFlags.NonPublic)!.GetValue(_host);

        private NpcCharacter Marta()
        {
            var thing = new GameObject("Marta");
            NpcCharacter marta = thing.AddComponent<NpcCharacter>();
            Set(marta, "spawnOnStart", false);
            Set(marta, "pace", 0f);
            marta.Persona = ScriptableObject.CreateInstance<NpcPersona>();
            marta.Persona.personaName = "Marta";
            marta.Persona.role = "smith";
            marta.Persona.fallbacks = new[] { "Hold that thought." };
            foreach ((string field, string name) in new[]
            {
                ("onSpawned", "spawned"), ("onMood", "mood"), ("onAction", "action"), ("onDelta", "delta"), ("onFinished", "finished"),
            })
            {
                var called = (UnityEvent<string>)typeof(NpcCharacter).GetField(field, BindingFlags.Instance | BindingFlags.NonPublic)!.GetValue(marta);
                called.AddListener(text => _told.Add($"{name}:{text}"));
            }
            marta.ReplyStarted += () => _told.Add("started");
            marta.Failed += error => _told.Add("failed:" + error.Code);
            return marta;
        }

        private Dictionary<string, object?> Next()
        {
            Dictionary<string, object?>? request = null;
            _player.Until(() => _daemon.Requests.TryTake(out request!));
            return request!;
        }

        private void Spawn()
        {
            Dictionary<string, object?> asked = Next();
            Assert.That(new[] { asked["op"], asked["npc"] }, Is.EqualTo(new object[] { "spawn", "Marta" }));
            _daemon.Answer(
                asked,
                "ok",
                ("npc", "Marta"),
                ("name", "Marta"),
                ("role", "smith"),
                ("seed", 7),
                ("cached", false),
                ("opening", new Dictionary<string, object?> { ["text"] = "Hm.", ["mood"] = "wary" }),
                ("tokens", Tokens()));
        }

        private void Speak(Dictionary<string, object?> asked, params string[] deltas)
        {
            _daemon.Answer(asked, "mood", ("mood", "happy"));
            _daemon.Answer(asked, "act", ("action", "give"));
            foreach (string delta in deltas)
            {
                _daemon.Answer(asked, "delta", ("text", delta));
            }
        }

        private void Info(Dictionary<string, object?> asked) => _daemon.Answer(
            asked, "ok", ("npc", "Marta"), ("name", "Marta"), ("turns", 1), ("tokens", 9), ("rewind", 1), ("seed", 7), ("busy", false));

        private void Verb(Task verb, string op, Action<Dictionary<string, object?>> answer, bool spawn = false)
        {
            if (spawn)
            {
                Spawn();
            }
            Dictionary<string, object?> asked = Next();
            Assert.That(asked["op"], Is.EqualTo(op));
            answer(asked);
            _player.Until(() => verb.IsCompleted);
            verb.GetAwaiter().GetResult();
        }

        private void AnswerBye() => Task.Run(() =>
        {
            Dictionary<string, object?> bye = _daemon.Next();
            _daemon.Answer(bye, "ok");
        });
    }
}

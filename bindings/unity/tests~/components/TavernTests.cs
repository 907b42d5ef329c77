#nullable enable
using System;
using System.Diagnostics;
using System.Linq;
using System.Reflection;
using NpcRuntime.Samples;
using NUnit.Framework;
using UnityEngine;
using Debug = UnityEngine.Debug;

namespace NpcRuntime.Tests
{
    /// <summary>The sample as a player meets it, with the real daemon (NPC_RUNTIME_COMMAND), which dies in between.</summary>
    [TestFixture]
    public class TavernTests
    {
        private FakePlayer _player = null!;
        private Tavern _tavern = null!;
        private NpcRuntimeHost _host = null!;

        [SetUp]
        public void Open()
        {
            string? command = Environment.GetEnvironmentVariable("NPC_RUNTIME_COMMAND");
            if (command == null)
            {
                Assert.Ignore("NPC_RUNTIME_COMMAND must call npc-runtime");
            }
            Debug.Logged.Clear();
            _player = new FakePlayer();
            var thing = new GameObject("host");
            thing.SetActive(false);
            _host = thing.AddComponent<NpcRuntimeHost>();
            Set("command", command!.Split(' '));
            Set("options", new[] { "--pace-tokens-per-s", "0" });
            thing.SetActive(true);
            _tavern = new GameObject("tavern").AddComponent<Tavern>();
        }

        [TearDown]
        public void Close() => _player?.Dispose();

        [Test]
        public void AnEveningInTheTavern()
        {
            Until(() => Shown("marta:") && Shown("bram:"));
            _tavern.Typed = "Who are you?";
            Press("Say to marta");
            Until(() => Shown("marta ("));
            NpcClient client = _host.Client!;
            Until(() => client.ListAsync().Result.Single(npc => npc.Npc == "bram").Turns > 0);
            Press("Save");
            Until(() => Shown("(saved:"));
            Kill(client.Daemon!.Pid);
            NpcCast.Revival? revival = null;
            _host.Recovered += told => revival = told;
            Until(() => revival != null && _host.Stage == NpcRuntimeHost.HostStage.Ready);
            Assert.That(revival!.Restored.Concat(revival.Anew), Is.EquivalentTo(new[] { "marta", "bram" }));
            Press("Load");
            Until(() => Shown("(loaded)"));
            int lines = Count("bram (");
            Press("Say to bram");
            Until(() => Count("bram (") > lines);
        }

        [Test]
        public void QuittingEndsTheDaemon()
        {
            Until(() => _host.Client != null);
            int pid = _host.Client!.Daemon!.Pid;
            _player.Quit();
            Assert.That(() => Process.GetProcessById(pid), Throws.ArgumentException);
        }

        private static void Press(string button) => GUILayout.Pressed.Add(button);

        private static void Kill(int pid)
        {
            using Process daemon = Process.GetProcessById(pid);
            daemon.Kill();
        }

        private void Set(string field, object value) =>
            typeof(NpcRuntimeHost).GetField(field, BindingFlags.Instance | BindingFlags.NonPublic)!.SetValue(_host, value);

        private int Count(string start) => _tavern.Lines.Count(line => line.StartsWith(start, StringComparison.Ordinal));

        private bool Shown(string start) => Count(start) > 0;

        private void Until(Func<bool> condition) => _player.Until(condition);
    }
}

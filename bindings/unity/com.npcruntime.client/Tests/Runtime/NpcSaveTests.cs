#nullable enable
using System;
using System.Collections.Generic;
using System.Threading.Tasks;
using NpcRuntime.Wire;
using NUnit.Framework;

namespace NpcRuntime.Tests
{
    [TestFixture]
    public class NpcSaveTests
    {
        [Test]
        public void SnapshotsGoThereAndBack()
        {
            using var daemon = new FakeDaemon();
            using NpcClient client = NpcClient.ConnectAsync(daemon.Endpoint, FakeDaemon.Key).Get();
            Task<byte[]> capture = NpcSave.CaptureAsync(client, new[] { "marta", "tom" });
            foreach (byte one in new byte[] { 1, 2 })
            {
                daemon.Answer(daemon.Next(), "ok", ("data", new[] { one }));
            }
            Task<IReadOnlyList<NpcInfo>> restore = NpcSave.RestoreAsync(client, capture.Get());
            foreach ((string npc, byte one) in new[] { ("marta", (byte)1), ("tom", (byte)2) })
            {
                Dictionary<string, object?> asked = daemon.Next();
                Assert.That(
                    new[] { asked["op"], asked["npc"], asked["replace"], ((byte[])asked["data"]!)[0] },
                    Is.EqualTo(new object[] { "restore", npc, true, one }));
                daemon.Answer(
                    asked, "ok", ("npc", npc), ("name", npc), ("turns", 1), ("tokens", 9), ("rewind", 0), ("seed", 7), ("busy", false));
            }
            Assert.That(restore.Get().Count, Is.EqualTo(2));
            daemon.HangUp();
            client.WhenLost.End();
        }

        [Test]
        public void OneThatIsSpeakingIsWaitedFor()
        {
            using var daemon = new FakeDaemon();
            using NpcClient client = NpcClient.ConnectAsync(daemon.Endpoint, FakeDaemon.Key).Get();
            Task<byte[]> capture = NpcSave.CaptureAsync(client, new[] { "marta" });
            daemon.Answer(daemon.Next(), "error", ("code", "npc_busy"), ("text", "speaking"), ("retry", true));
            daemon.Answer(daemon.Next(), "ok", ("data", new byte[] { 5 }));
            Assert.That(NpcSave.Read(capture.Get())["marta"], Is.EqualTo(new byte[] { 5 }));
            Task<byte[]> gone = NpcSave.CaptureAsync(client, new[] { "tom" });
            daemon.Answer(daemon.Next(), "error", ("code", "unknown_npc"), ("text", "nobody"), ("retry", false));
            Assert.That(gone.Failure().Kind, Is.EqualTo(NpcErrorCode.UnknownNpc));
            daemon.HangUp();
            client.WhenLost.End();
        }

        [Test]
        public void EveryTruncationIsRefused()
        {
            byte[] save = MsgPackWriter.Pack(new Dictionary<string, object?>
            {
                ["npc_save"] = 1, ["npcs"] = new Dictionary<string, object?> { ["marta"] = new byte[] { 1, 2 } },
            });
            Assert.That(NpcSave.Read(save)["marta"], Is.EqualTo(new byte[] { 1, 2 }));
            for (int length = 0; length < save.Length; length++)
            {
                byte[] part = save.AsSpan(0, length).ToArray();
                Assert.That(Assert.Throws<NpcException>(() => NpcSave.Read(part)).Kind, Is.EqualTo(NpcErrorCode.BadSave));
            }
        }

        [Test]
        public void ALaterFormatIsRefused()
        {
            byte[] save = MsgPackWriter.Pack(new Dictionary<string, object?> { ["npc_save"] = 2 });
            Assert.That(Assert.Throws<NpcException>(() => NpcSave.Read(save)).Message, Contains.Substring("format 2"));
        }
    }
}

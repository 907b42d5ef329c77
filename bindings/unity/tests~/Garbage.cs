#nullable enable
using System;
using System.Collections.Generic;
using System.Threading;
using System.Threading.Tasks;
using NpcRuntime.Tests;
using NpcRuntime.Wire;

namespace NpcRuntime.Probe
{
    /// <summary>Bytes allocated per streamed Delta and per idle frame.</summary>
    internal static class Garbage
    {
        private const int Deltas = 20_000;

        /// <param name="nursery">Bytes of Mono's nursery, by whose collections the whole process is measured.</param>
        internal static async Task<object> Measure(long nursery)
        {
            using var daemon = new FakeDaemon();
            await using NpcClient client = await NpcClient.ConnectAsync(daemon.Endpoint, FakeDaemon.Key);
            Stream(daemon, client, 1000);
            int collections = GC.CollectionCount(0);
            Stream(daemon, client, Deltas);
            collections = GC.CollectionCount(0) - collections;
            double stream = (double)nursery * collections / Deltas;
            double idle = Idle(client);
            daemon.HangUp();
            return new Dictionary<string, object?> { ["decode"] = Decode(), ["text"] = Text(), ["idle"] = idle, ["stream"] = stream };
        }

        /// <summary>From bytes of the socket to a Piece in the game's hand, without the socket.</summary>
        private static double Decode()
        {
            const int Count = 4000;
            var zmtp = new Zmtp("x", 1 << 20);
            zmtp.Feed(Zmtp.Greeting());
            zmtp.Feed(new byte[] { 4, 8, 7, 87, 69, 76, 67, 79, 77, 69, 4, 6, 5, 82, 69, 65, 68, 89 });
            zmtp.TryNext(out _);
            byte[] frame = Zmtp.Message(MsgPackWriter.Pack(new Dictionary<string, object?> { ["id"] = 300, ["ev"] = "delta", ["text"] = " word" }));
            var stream = new ReplyStream("marta", (npc, heard) => { });
            long before = 0;
            for (int i = -100; i < Count; i++)
            {
                before = i == 0 ? GC.GetAllocatedBytesForCurrentThread() : before;
                zmtp.Feed(frame);
                zmtp.TryNext(out ReadOnlyMemory<byte> message);
                Event.TryDelta(message.Span, out _, out Piece piece);
                stream.Intake.Take(piece);
                stream.TryRead(out _);
            }
            return (double)(GC.GetAllocatedBytesForCurrentThread() - before) / Count;
        }

        /// <summary>What the text of such a Delta weighs by itself.</summary>
        private static double Text()
        {
            char[] letters = " word".ToCharArray();
            long before = GC.GetAllocatedBytesForCurrentThread();
            for (int i = 0; i < 1000; i++)
            {
                GC.KeepAlive(new string(letters));
            }
            return (GC.GetAllocatedBytesForCurrentThread() - before) / 1000.0;
        }

        /// <summary>Deltas that come one by one, each in a packet of its own, to a game that polls.</summary>
        private static void Stream(FakeDaemon daemon, NpcClient client, int count)
        {
            ReplyStream stream = client.Stream("marta", "Tell me more.");
            long id = (long)daemon.Next()["id"]!;
            byte[] frame = Zmtp.Message(MsgPackWriter.Pack(new Dictionary<string, object?> { ["id"] = id, ["ev"] = "delta", ["text"] = " word" }));
            for (int i = 0; i < count; i++)
            {
                daemon.SendRaw(frame);
                while (!stream.TryRead(out _))
                {
                    Thread.Yield();
                }
            }
        }

        /// <summary>What a game's thread allocates in a thousand frames in which nothing happens.</summary>
        private static double Idle(NpcClient client)
        {
            var stream = new ReplyStream("marta", (npc, heard) => { });
            long before = GC.GetAllocatedBytesForCurrentThread();
            for (int i = 0; i < 1000; i++)
            {
                stream.TryRead(out _);
                GC.KeepAlive(client.IsConnected ? null : client);
            }
            return (GC.GetAllocatedBytesForCurrentThread() - before) / 1000.0;
        }
    }
}

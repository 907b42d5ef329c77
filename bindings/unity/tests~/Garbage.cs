#nullable enable
using System;
using System.Collections.Generic;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;
using NpcRuntime.Wire;

namespace NpcRuntime.Probe
{
    /// <summary>Bytes allocated per streamed Delta and per idle frame.</summary>
    internal static class Garbage
    {
        internal static async Task<object> Measure(string endpoint, string key)
        {
            await using NpcClient client = await NpcClient.ConnectAsync(endpoint, key);
            var told = new Dictionary<string, object?> { ["decode"] = Decode(), ["text"] = Text() };
            await client.SpawnAsync("marta", "marta", 7);
            for (int warm = 0; warm < 3; warm++)
            {
                await Poll(client);
            }
            told["idle"] = Idle(client);
            var perDelta = new List<double>();
            for (int i = 0; i < 7; i++)
            {
                (long bytes, int deltas) = await Poll(client);
                perDelta.Add((double)bytes / deltas);
                told["deltas"] = deltas;
            }
            told["stream"] = perDelta.OrderBy(value => value).ElementAt(3);
            return told;
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

        /// <summary>The whole process over one streamed Reply that is polled as a game loop does.</summary>
        private static async Task<(long Bytes, int Deltas)> Poll(NpcClient client)
        {
            ReplyStream stream = client.Stream("marta", "Tell me more.", new SayOptions { Pace = 200, MaxTokens = 160, Temperature = 1.5 });
            int deltas = 0;
            while (!stream.TryRead(out _) && !stream.Reply.IsCompleted)
            {
                Thread.Sleep(1);
            }
            GC.Collect();
            long before = GC.GetTotalMemory(false), last = before;
            int collections = GC.CollectionCount(0);
            while (!stream.Reply.IsCompleted)
            {
                while (stream.TryRead(out Piece piece))
                {
                    deltas += piece.Text.Length > 0 ? 1 : 0;
                    last = GC.GetTotalMemory(false);
                }
                Thread.Sleep(1);
            }
            await stream.Reply;
            return (collections == GC.CollectionCount(0) ? last - before : 0, Math.Max(deltas, 1));
        }

        /// <summary>What a game's thread allocates in a thousand frames in which nothing happens.</summary>
        private static long Idle(NpcClient client)
        {
            var stream = new ReplyStream("marta", (npc, heard) => { });
            long before = GC.GetAllocatedBytesForCurrentThread();
            for (int i = 0; i < 1000; i++)
            {
                stream.TryRead(out _);
                GC.KeepAlive(client.IsConnected ? null : client);
            }
            return GC.GetAllocatedBytesForCurrentThread() - before;
        }
    }
}

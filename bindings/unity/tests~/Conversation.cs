#nullable enable
using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.IO;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;

namespace NpcRuntime.Probe
{
    /// <summary>A whole life of a game with a daemon of its own: stream, cut, save, SIGKILL, restart, restore, and on as if nothing had been.</summary>
    internal static class Conversation
    {
        private static readonly SayOptions Fast = new SayOptions { Pace = 0, MaxTokens = 24 };
        private static readonly SayOptions Slow = new SayOptions { Pace = 15, MaxTokens = 96, Temperature = 5 };

        internal static async Task<object> Run(IReadOnlyList<string> command)
        {
            string path = Path.Combine(Path.GetTempPath(), $"npc-{Guid.NewGuid():N}.npcsave");
            var told = new Dictionary<string, object?>();
            NpcClient client = await NpcClient.StartAsync(new DaemonOptions { Command = command });
            try
            {
                told["backend"] = client.Hello.Backend;
                await Talk(client, told);
                (byte[] bytes, byte[] all, Reply before) = await Keep(client, path, told);
                await Die(client, told);
                await Return(client, path, bytes, all, before, told);
            }
            finally
            {
                File.Delete(path);
            }
            int pid = client.Daemon!.Pid;
            client.Dispose();
            Must(!Alive(pid), "the daemon ends with the client");
            return told;
        }

        private static async Task Talk(NpcClient client, Dictionary<string, object?> told)
        {
            Spawned spawned = await client.SpawnAsync("marta", "marta", 7);
            Must(spawned.Opening != null, "an opening");
            ReplyStream stream = client.Stream("marta", "Good evening.", Fast);
            string text = "";
            var pieces = new List<Piece>();
            await foreach (Piece piece in stream)
            {
                pieces.Add(piece);
                text += piece.Text;
            }
            Reply reply = await stream.Reply;
            Must(reply.Text == text && pieces[0].Mood == reply.Mood, "the Reply is the sum of its Pieces");
            told["pieces"] = pieces.Count;
            await Cut(client, told);
            await client.ObserveAsync("marta", "The bells ring.");
            Chosen chosen = await client.ChooseAsync("marta", new[] { "Yes.", "No." }, "Is the road open?");
            Must(chosen.Scores.Count == 2 && chosen.Text == new[] { "Yes.", "No." }[chosen.Index], "a choice");
        }

        /// <summary>Cuts a slow stream by a token after some text: the Reply is what was heard, no more.</summary>
        private static async Task Cut(NpcClient client, Dictionary<string, object?> told)
        {
            using var cancel = new CancellationTokenSource();
            ReplyStream stream = client.Stream("marta", "Tell me all about the flood, please.", Slow, cancel.Token);
            string heard = "";
            await foreach (Piece piece in stream)
            {
                heard += cancel.IsCancellationRequested ? "" : piece.Text;
                if (heard.Length >= 3)
                {
                    cancel.Cancel();
                }
            }
            Reply reply = await stream.Reply;
            Must(reply.Finish == "cancelled" && reply.Text.TrimEnd() == heard.TrimEnd(), $"`{reply.Text}` ({reply.Finish}) is what was heard: `{heard}`");
            told["heard"] = heard;
        }

        /// <summary>Three ways to keep an Npc, and what it says next.</summary>
        private static async Task<(byte[] Bytes, byte[] All, Reply Before)> Keep(NpcClient client, string path, Dictionary<string, object?> told)
        {
            Saved saved = await client.SaveAsync(path);
            Must(saved.Npcs.SequenceEqual(new[] { "marta" }) && saved.Bytes == new FileInfo(path).Length, "a save of all");
            byte[] bytes = await client.SnapshotAsync("marta");
            byte[] all = await NpcSave.CaptureAsync(client);
            Reply before = await client.SayAsync("marta", "And then?", Fast);
            told["save_bytes"] = saved.Bytes;
            return (bytes, all, before);
        }

        private static async Task Die(NpcClient client, Dictionary<string, object?> told)
        {
            Task<Reply> under = client.SayAsync("marta", "Are you there?", Slow);
            using (Process daemon = Process.GetProcessById(client.Daemon!.Pid))
            {
                daemon.Kill();
            }
            NpcException lost = await client.WhenLost;
            try
            {
                await under;
                Must(false, "a Turn under way fails");
            }
            catch (NpcException error)
            {
                Must(error.Kind == NpcErrorCode.ConnectionLost && lost.Retry, error.Told);
            }
            await client.RestartAsync();
            Must((await client.ListAsync()).Count == 0 && client.IsConnected, "a new daemon knows nobody");
            told["restarted"] = true;
        }

        /// <summary>However it is brought back, the Npc goes on bit for bit: the same Reply, and the same State after it.</summary>
        private static async Task Return(
            NpcClient client, string path, byte[] bytes, byte[] all, Reply before, Dictionary<string, object?> told)
        {
            var cast = new NpcCast();
            cast.Restored("marta", bytes);
            var states = new List<byte[]>();
            foreach (Func<Task> back in new Func<Task>[]
            {
                () => client.LoadAsync(path),
                () => client.RestoreAsync("marta", bytes, true),
                () => NpcSave.RestoreAsync(client, all),
                () => cast.ReviveAsync(client),
            })
            {
                await back();
                Reply again = await client.SayAsync("marta", "And then?", Fast);
                Must(
                    (again.Text, again.Mood, again.Action, again.Turn, again.Seed, again.TokensReread)
                    == (before.Text, before.Mood, before.Action, before.Turn, before.Seed, 0),
                    $"`{again.Text}` continues as `{before.Text}`");
                states.Add(await client.SnapshotAsync("marta"));
            }
            Must(states.All(state => state.AsSpan().SequenceEqual(states[0])), "the State after it is the same, bit for bit");
            told["continued"] = before.Text;
        }

        private static bool Alive(int pid)
        {
            try
            {
                using Process process = Process.GetProcessById(pid);
                return !process.HasExited;
            }
            catch (ArgumentException)
            {
                return false;
            }
        }

        private static void Must(bool holds, string what)
        {
            if (!holds)
            {
                throw new NpcException(NpcErrorCode.Internal, "does not hold: " + what);
            }
        }
    }
}

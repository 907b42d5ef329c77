#nullable enable
using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Security.Cryptography;
using System.Threading.Tasks;
using NpcRuntime.Wire;

namespace NpcRuntime.Probe
{
    /// <summary>Plays bindings/vectors/script.json; the Python and GDScript players must come to the same bytes.</summary>
    internal static class Script
    {
        internal static async Task<object> Run(string endpoint, string key, string path)
        {
            var script = new Fields((Dictionary<string, object?>)Json.Parse(File.ReadAllText(path))!);
            await using NpcClient client = await NpcClient.ConnectAsync(endpoint, key, "script-csharp");
            var told = new List<object?>();
            foreach (Fields step in script.Subs("steps", step => step))
            {
                try
                {
                    told.Add(await Play(client, step));
                }
                catch (NpcException error)
                {
                    told.Add(new Dictionary<string, object?> { ["error"] = error.Code });
                }
            }
            await client.ByeAsync(false);
            return told;
        }

        internal static Dictionary<string, object?> Told(Reply reply) => new Dictionary<string, object?>
        {
            ["npc"] = reply.Npc,
            ["mood"] = reply.Mood,
            ["action"] = reply.Action,
            ["text"] = reply.Text,
            ["finish"] = reply.Finish,
            ["turn"] = reply.Turn,
            ["seed"] = reply.Seed,
            ["read"] = reply.TokensRead,
            ["spoken"] = reply.TokensSpoken,
        };

        private static async Task<Dictionary<string, object?>> Play(NpcClient client, Fields step)
        {
            string op = step.Text("op"), npc = step.TextOr("npc", "");
            switch (op)
            {
                case "spawn":
                    Spawned spawned = step.Map["persona"] is string name
                        ? await client.SpawnAsync(npc, name, step.Long("seed"))
                        : await client.SpawnAsync(npc, step.Sub("persona").Map, step.Long("seed"));
                    return One("opening", spawned.Opening?.Text, "seed", spawned.Seed);
                case "say": return Told(await client.SayAsync(npc, step.Text("text"), Options(step)));
                case "stream": return await Stream(client, step);
                case "observe":
                    Observed observed = await client.ObserveAsync(step.Texts("npcs"), step.Text("text"));
                    return One("npcs", observed.Npcs.ToArray(), "read", observed.TokensRead);
                case "choose":
                    Chosen chosen = await client.ChooseAsync(npc, step.Texts("lines"), step.Text("text"));
                    return One("index", chosen.Index, "scores", chosen.Scores.ToArray());
                case "fork": return Info(await client.ForkAsync(npc, step.Text("to")));
                case "rewind": return Info(await client.RewindAsync(npc, step.Int("turns")));
                case "snapshot": return One("sha256", Hash(await client.SnapshotAsync(npc)), "npc", npc);
                case "return": return Info(await client.RestoreAsync(step.Text("to"), await client.SnapshotAsync(npc)));
                case "drop":
                    await client.DropAsync(npc);
                    return One("npc", npc, "dropped", true);
                default: throw new NpcException(NpcErrorCode.UnknownOp, op);
            }
        }

        /// <summary>Reads a stream; with `cut`, cancels as soon as so many characters have come, with just these heard.</summary>
        private static async Task<Dictionary<string, object?>> Stream(NpcClient client, Fields step)
        {
            ReplyStream stream = client.Stream(step.Text("npc"), step.Text("text"), Options(step));
            int cut = step.Has("cut") ? step.Int("cut") : int.MaxValue;
            string text = "";
            await foreach (Piece piece in stream)
            {
                text += piece.Text;
                if (text.Length >= cut)
                {
                    await client.CancelAsync(step.Text("npc"), cut);
                    cut = int.MaxValue;
                }
            }
            Dictionary<string, object?> told = Told(await stream.Reply);
            told["whole"] = text.StartsWith((string)told["text"]!, StringComparison.Ordinal);
            return told;
        }

        private static SayOptions Options(Fields step) => new SayOptions
        {
            Kind = step.TextOr("kind", "player"),
            Moods = step.Has("moods") ? step.Texts("moods") : null,
            Actions = step.Has("actions") ? step.Texts("actions") : null,
            Pace = step.Has("pace") ? step.Number("pace") : 0,
            Seed = step.Has("seed") ? step.Long("seed") : (long?)null,
            Temperature = step.Has("temperature") ? step.Number("temperature") : (double?)null,
            MaxTokens = step.Has("max_tokens") ? step.Int("max_tokens") : (int?)null,
        };

        private static Dictionary<string, object?> Info(NpcInfo info) => new Dictionary<string, object?>
        {
            ["npc"] = info.Npc, ["turns"] = info.Turns, ["tokens"] = info.Tokens, ["rewind"] = info.Rewind, ["seed"] = info.Seed,
        };

        private static Dictionary<string, object?> One(string name, object? value, string other, object? second) =>
            new Dictionary<string, object?> { [name] = value, [other] = second };

        private static string Hash(byte[] data)
        {
            using SHA256 hash = SHA256.Create();
            return BitConverter.ToString(hash.ComputeHash(data)).Replace("-", "").ToLowerInvariant();
        }
    }
}

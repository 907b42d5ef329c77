#nullable enable
using System.Collections.Generic;

namespace NpcRuntime.Wire
{
    /// <summary>Bodies of requests, field for field as bindings/PROTOCOL.md orders them; fields at their default are left out.</summary>
    internal static class Requests
    {
        internal const int Protocol = 1;

        internal static Dictionary<string, object?> Bare(string op) => new Dictionary<string, object?> { ["id"] = 0L, ["op"] = op };

        internal static Dictionary<string, object?> Hello(string client, string session) =>
            Bare("hello").With("protocol", new[] { Protocol }).Unless("client", client, "").Unless("session", session, "");

        internal static Dictionary<string, object?> Spawn(string npc, object persona, long? seed, bool replace) =>
            Of("spawn", npc).With("persona", persona).If("seed", seed).If("replace", replace);

        internal static Dictionary<string, object?> Say(string npc, string text, SayOptions say, bool stream) =>
            Of("say", npc)
                .With("text", text)
                .Unless("kind", say.Kind, "player")
                .If("moods", say.Moods)
                .If("actions", say.Actions)
                .Unless("lane", say.Lane, "player")
                .If("deadline_ms", say.DeadlineMs)
                .If("pace", say.Pace)
                .Unless("stream", stream, true)
                .If("seed", say.Seed)
                .If("temperature", say.Temperature)
                .If("top_p", say.TopP)
                .If("repetition", say.Repetition)
                .If("max_tokens", say.MaxTokens);

        internal static Dictionary<string, object?> Observe(IReadOnlyList<string> npcs, string text, string lane) =>
            Bare("observe").If("npcs", npcs).With("text", text).Unless("lane", lane, "background");

        internal static Dictionary<string, object?> Choose(
            string npc, IReadOnlyList<string> lines, string text, IReadOnlyList<string>? moods, string lane) =>
            Of("choose", npc).If("lines", lines).Unless("text", text, "").If("moods", moods).Unless("lane", lane, "player");

        internal static Dictionary<string, object?> Cancel(string npc, int? heard) => Of("cancel", npc).If("heard", heard);

        internal static Dictionary<string, object?> Restore(string npc, byte[] data, bool replace, bool rebuild) =>
            Of("restore", npc).With("data", data).If("replace", replace).If("rebuild", rebuild);

        internal static Dictionary<string, object?> Fork(string npc, string to, bool replace) =>
            Of("fork", npc).With("to", to).If("replace", replace);

        internal static Dictionary<string, object?> Rewind(string npc, int turns) => Of("rewind", npc).Unless("turns", turns, 1);

        internal static Dictionary<string, object?> Save(string path, IReadOnlyList<string>? npcs) =>
            Bare("save").With("path", path).If("npcs", npcs);

        internal static Dictionary<string, object?> Load(string path, IReadOnlyList<string>? npcs, bool replace, bool rebuild) =>
            Bare("load").With("path", path).If("npcs", npcs).If("replace", replace).If("rebuild", rebuild);

        internal static Dictionary<string, object?> Bye(bool? keep) =>
            keep.HasValue ? Bare("bye").With("keep", keep.Value) : Bare("bye");

        /// <summary>A request of one field, the Npc.</summary>
        internal static Dictionary<string, object?> Of(string op, string npc) => Bare(op).With("npc", npc);

        private static Dictionary<string, object?> With(this Dictionary<string, object?> body, string name, object value)
        {
            body[name] = value;
            return body;
        }

        private static Dictionary<string, object?> Unless<T>(this Dictionary<string, object?> body, string name, T value, T usual)
            where T : notnull => value.Equals(usual) ? body : body.With(name, value);

        private static Dictionary<string, object?> If(this Dictionary<string, object?> body, string name, bool flag) =>
            flag ? body.With(name, true) : body;

        private static Dictionary<string, object?> If<T>(this Dictionary<string, object?> body, string name, T? value)
            where T : struct => value.HasValue ? body.With(name, value.Value) : body;

        private static Dictionary<string, object?> If(this Dictionary<string, object?> body, string name, IReadOnlyList<string>? texts) =>
            texts == null ? body : body.With(name, new List<string>(texts));
    }
}

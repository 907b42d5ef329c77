#nullable enable
using System.Collections.Generic;
using NpcRuntime.Wire;

namespace NpcRuntime
{
    /// <summary>What an Npc answered.</summary>
    public sealed class Reply
    {
        internal Reply(Fields told)
        {
            Npc = told.Text("npc");
            Mood = told.Text("mood");
            Action = told.TextOrNull("action");
            Text = told.Text("text");
            Finish = told.Text("finish");
            Turn = told.Int("turn");
            Seed = told.Long("seed");
            Fields tokens = told.Sub("tokens"), ms = told.Sub("ms");
            TokensRead = tokens.Int("read");
            TokensSpoken = tokens.Int("spoken");
            TokensReread = tokens.Int("reread");
            QueuedMs = ms.Number("queued");
            FirstMs = ms.Number("first");
            TotalMs = ms.Number("total");
        }

        /// <summary>Id of the Npc that spoke.</summary>
        public string Npc { get; }

        /// <summary>One of the moods allowed in this Turn.</summary>
        public string Mood { get; }

        /// <summary>One of the actions allowed in this Turn; null for none.</summary>
        public string? Action { get; }

        /// <summary>The speech, free of tags.</summary>
        public string Text { get; }

        /// <summary><c>end</c>, <c>length</c> or <c>cancelled</c>.</summary>
        public string Finish { get; }

        /// <summary>Number of the Turn in this Npc's life, from 0.</summary>
        public int Turn { get; }

        /// <summary>Seed of this Turn's draws.</summary>
        public long Seed { get; }

        /// <summary>Tokens of this Turn that were read.</summary>
        public int TokensRead { get; }

        /// <summary>Tokens spoken.</summary>
        public int TokensSpoken { get; }

        /// <summary>Tokens read again: 0 unless a rebuild was asked for.</summary>
        public int TokensReread { get; }

        /// <summary>Milliseconds the Turn waited.</summary>
        public double QueuedMs { get; }

        /// <summary>Milliseconds to the first text.</summary>
        public double FirstMs { get; }

        /// <summary>Milliseconds to the end.</summary>
        public double TotalMs { get; }
    }

    /// <summary>What a Persona says first; the Npc remembers having said it.</summary>
    public sealed class Opening
    {
        internal Opening(Fields told)
        {
            Text = told.Text("text");
            Mood = told.Text("mood");
        }

        /// <summary>The line.</summary>
        public string Text { get; }

        /// <summary>Its mood.</summary>
        public string Mood { get; }
    }

    /// <summary>A new Npc.</summary>
    public sealed class Spawned
    {
        internal Spawned(Fields told)
        {
            Npc = told.Text("npc");
            Name = told.Text("name");
            Role = told.Text("role");
            Seed = told.Long("seed");
            Cached = told.Flag("cached");
            Opening = told.Has("opening") ? new Opening(told.Sub("opening")) : null;
            TokensRead = told.Sub("tokens").Int("read");
        }

        /// <summary>Id of the Npc.</summary>
        public string Npc { get; }

        /// <summary>Name of its Persona.</summary>
        public string Name { get; }

        /// <summary>Role of its Persona.</summary>
        public string Role { get; }

        /// <summary>What its draws begin with: the same seed and the same Turns give the same Replies.</summary>
        public long Seed { get; }

        /// <summary>Whether its Persona had been read before, so that this one read nothing.</summary>
        public bool Cached { get; }

        /// <summary>What it says first; null when the Persona has no opening.</summary>
        public Opening? Opening { get; }

        /// <summary>Tokens that were read.</summary>
        public int TokensRead { get; }
    }

    /// <summary>An Npc in figures.</summary>
    public sealed class NpcInfo
    {
        internal NpcInfo(Fields told)
        {
            Npc = told.Text("npc");
            Name = told.Text("name");
            Turns = told.Int("turns");
            Tokens = told.Long("tokens");
            Rewind = told.Int("rewind");
            Seed = told.Long("seed");
            Busy = told.Flag("busy");
            Rebuilt = told.FlagOr("rebuilt", false);
        }

        /// <summary>Its id.</summary>
        public string Npc { get; }

        /// <summary>Name of its Persona.</summary>
        public string Name { get; }

        /// <summary>Turns it has lived.</summary>
        public int Turns { get; }

        /// <summary>Tokens in its State.</summary>
        public long Tokens { get; }

        /// <summary>Turns it can go back.</summary>
        public int Rewind { get; }

        /// <summary>Its seed.</summary>
        public long Seed { get; }

        /// <summary>Whether Turns are under way.</summary>
        public bool Busy { get; }

        /// <summary>Whether it was re-read from stored text because its save is of another Bundle.</summary>
        public bool Rebuilt { get; }
    }

    /// <summary>What came of an <c>observe</c>.</summary>
    public sealed class Observed
    {
        internal Observed(Fields told)
        {
            Npcs = told.Texts("npcs");
            Failed = told.TextMap("failed");
            TokensRead = told.Sub("tokens").Int("read");
        }

        /// <summary>Who perceived the event.</summary>
        public IReadOnlyList<string> Npcs { get; }

        /// <summary>Who did not, with the error's code.</summary>
        public IReadOnlyDictionary<string, string> Failed { get; }

        /// <summary>Tokens each has read.</summary>
        public int TokensRead { get; }
    }

    /// <summary>The line an Npc took.</summary>
    public sealed class Chosen
    {
        internal Chosen(Fields told)
        {
            Npc = told.Text("npc");
            Index = told.Int("index");
            Text = told.Text("text");
            Mood = told.Text("mood");
            Scores = told.Numbers("scores");
        }

        /// <summary>Id of the Npc.</summary>
        public string Npc { get; }

        /// <summary>Which of the offered lines.</summary>
        public int Index { get; }

        /// <summary>That line.</summary>
        public string Text { get; }

        /// <summary>Its mood.</summary>
        public string Mood { get; }

        /// <summary>Mean log-probability per token of every line offered.</summary>
        public IReadOnlyList<double> Scores { get; }
    }

    /// <summary>A save as written.</summary>
    public sealed class Saved
    {
        internal Saved(Fields told)
        {
            Path = told.Text("path");
            Npcs = told.Texts("npcs");
            Bytes = told.Long("bytes");
        }

        /// <summary>The file, as the daemon names it.</summary>
        public string Path { get; }

        /// <summary>Ids of the Npcs in it.</summary>
        public IReadOnlyList<string> Npcs { get; }

        /// <summary>Size of the file.</summary>
        public long Bytes { get; }
    }

    /// <summary>Npcs brought back from a save.</summary>
    public sealed class Loaded
    {
        internal Loaded(Fields told)
        {
            Npcs = told.Subs("npcs", npc => new NpcInfo(npc));
            Rebuilt = told.Texts("rebuilt");
        }

        /// <summary>The Npcs.</summary>
        public IReadOnlyList<NpcInfo> Npcs { get; }

        /// <summary>Ids of those re-read from stored text because the Bundle is another.</summary>
        public IReadOnlyList<string> Rebuilt { get; }
    }

    /// <summary>What a daemon tells of itself and allows.</summary>
    public sealed class Hello
    {
        internal Hello(Fields told)
        {
            Fields bundle = told.Sub("bundle"), limits = told.Sub("limits");
            Version = told.Text("version");
            BundleName = bundle.Text("name");
            BundleHash = bundle.Text("hash");
            Backend = told.Text("backend");
            Reason = told.TextOr("reason", "");
            Session = told.Text("session");
            Resumed = told.Flag("resumed");
            Moods = told.Texts("moods");
            Actions = told.Texts("actions");
            HeartbeatSeconds = told.Number("heartbeat_s");
            RelativePaths = told.FlagOr("relative_paths", false);
            MaxFrameBytes = limits.Long("max_frame_bytes");
            MaxTextChars = limits.Int("max_text_chars");
            MaxQueued = limits.Int("max_queued");
        }

        /// <summary>Version of npc-runtime.</summary>
        public string Version { get; }

        /// <summary>Name of the Bundle that speaks.</summary>
        public string BundleName { get; }

        /// <summary>Its hash: a save fits the Bundle of the same hash.</summary>
        public string BundleHash { get; }

        /// <summary>Where it computes, such as <c>onnx</c>.</summary>
        public string Backend { get; }

        /// <summary>Why this backend was chosen.</summary>
        public string Reason { get; }

        /// <summary>Name of our Session.</summary>
        public string Session { get; }

        /// <summary>Whether the Session's Npcs of an earlier connection are still there.</summary>
        public bool Resumed { get; }

        /// <summary>Moods of Personas that name none.</summary>
        public IReadOnlyList<string> Moods { get; }

        /// <summary>Actions of Personas that name none.</summary>
        public IReadOnlyList<string> Actions { get; }

        /// <summary>Silence after which either side asks whether the other lives; 0: never.</summary>
        public double HeartbeatSeconds { get; }

        /// <summary>Whether saves are named from the daemon's save folder rather than by full path.</summary>
        public bool RelativePaths { get; }

        /// <summary>Most bytes of one message to the daemon.</summary>
        public long MaxFrameBytes { get; }

        /// <summary>Most characters of one line.</summary>
        public int MaxTextChars { get; }

        /// <summary>Turns that may wait per Session.</summary>
        public int MaxQueued { get; }
    }
}

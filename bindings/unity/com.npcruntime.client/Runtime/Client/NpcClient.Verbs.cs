#nullable enable
using System;
using System.Collections.Generic;
using System.IO;
using System.Threading;
using System.Threading.Tasks;
using NpcRuntime.Wire;

namespace NpcRuntime
{
    /// <summary>The verbs, under the names that they have on the wire and in every other client.</summary>
    public sealed partial class NpcClient
    {
        private static readonly SayOptions Usual = new SayOptions();

        /// <summary>Brings a Persona alive under the id <paramref name="npc"/>.</summary>
        /// <param name="npc">The id.</param>
        /// <param name="persona">A name, or the path of a TOML file that the daemon can read.</param>
        /// <param name="seed">Makes its Replies repeatable; drawn at random when null.</param>
        /// <param name="replace">Whether an Npc of that id makes way.</param>
        /// <param name="cancellation">Ends the waiting.</param>
        /// <exception cref="NpcException">NpcExists, UnknownPersona, BadPersona, BudgetExceeded and others.</exception>
        public Task<Spawned> SpawnAsync(
            string npc, string persona, long? seed = null, bool replace = false, CancellationToken cancellation = default) =>
            Spawn(npc, persona, seed, replace, cancellation);

        /// <summary>Brings a Persona alive from a table of its fields, as <see cref="PersonaToml.Read"/> makes it.</summary>
        /// <exception cref="NpcException">As with a name.</exception>
        public Task<Spawned> SpawnAsync(
            string npc,
            IReadOnlyDictionary<string, object?> persona,
            long? seed = null,
            bool replace = false,
            CancellationToken cancellation = default) => Spawn(npc, persona, seed, replace, cancellation);

        /// <summary>Says a line to an Npc and waits for its whole Reply. The token cuts the Npc short, as if nothing had been heard.</summary>
        /// <exception cref="NpcException">UnknownNpc, QueueFull, TooLarge, Deadline, Cancelled and others.</exception>
        /// <exception cref="OperationCanceledException">The token was cancelled.</exception>
        public async Task<Reply> SayAsync(string npc, string text, SayOptions? options = null, CancellationToken cancellation = default)
        {
            Task<Reply> reply = Ask(Requests.Say(npc, text, options ?? Usual, false), told => new Reply(told), cancellation, npc, text);
            using (cancellation.Register(() => Cut(npc, 0)))
            {
                return await reply.ConfigureAwait(false);
            }
        }

        /// <summary>As <see cref="SayAsync"/>, in Pieces. The token cuts the Npc short at what was read by then.</summary>
        public ReplyStream Stream(string npc, string text, SayOptions? options = null, CancellationToken cancellation = default)
        {
            Given(npc, nameof(npc));
            Given(text, nameof(text));
            cancellation.ThrowIfCancellationRequested();
            var stream = new ReplyStream(npc, Cut);
            Connection.Send(Requests.Say(npc, text, options ?? Usual, true), stream.Intake);
            stream.Obey(cancellation);
            return stream;
        }

        /// <summary>Lets one Npc perceive an event; it does not answer.</summary>
        /// <exception cref="NpcException">UnknownNpc and others.</exception>
        public Task<Observed> ObserveAsync(string npc, string text, string lane = "background", CancellationToken cancellation = default) =>
            ObserveAsync(new[] { npc }, text, lane, cancellation);

        /// <summary>Lets Npcs perceive an event; none of them answers. Fails only when it failed for all.</summary>
        /// <exception cref="NpcException">UnknownNpc and others.</exception>
        public Task<Observed> ObserveAsync(
            IReadOnlyList<string> npcs, string text, string lane = "background", CancellationToken cancellation = default) =>
            Ask(Requests.Observe(npcs, text, lane), told => new Observed(told), cancellation, npcs, text, lane);

        /// <summary>Lets an Npc answer <paramref name="text"/> with the likeliest of given lines, which it then remembers as said.</summary>
        /// <exception cref="NpcException">UnknownNpc, TooLarge and others.</exception>
        public Task<Chosen> ChooseAsync(
            string npc,
            IReadOnlyList<string> lines,
            string text = "",
            IReadOnlyList<string>? moods = null,
            string lane = "player",
            CancellationToken cancellation = default) =>
            Ask(Requests.Choose(npc, lines, text, moods, lane), told => new Chosen(told), cancellation, npc, lines, text, lane);

        /// <summary>Cuts what an Npc is saying and empties its queue; how many Turns were touched.</summary>
        /// <param name="npc">The id.</param>
        /// <param name="heard">Characters of the running Reply that the player saw; null: all that was spoken.</param>
        /// <param name="cancellation">Ends the waiting.</param>
        /// <exception cref="NpcException">UnknownNpc and others.</exception>
        public Task<int> CancelAsync(string npc, int? heard = null, CancellationToken cancellation = default) =>
            Ask(Requests.Cancel(npc, heard), told => told.Int("cancelled"), cancellation, npc);

        /// <summary>An Npc as bytes: a save of one.</summary>
        /// <exception cref="NpcException">UnknownNpc, NpcBusy and others.</exception>
        public Task<byte[]> SnapshotAsync(string npc, CancellationToken cancellation = default) =>
            Ask(Requests.Of("snapshot", npc), told => told.Data("data"), cancellation, npc);

        /// <summary>Brings a snapshot back under an id.</summary>
        /// <param name="npc">The id.</param>
        /// <param name="data">Of <see cref="SnapshotAsync"/>.</param>
        /// <param name="replace">Whether an Npc of that id makes way.</param>
        /// <param name="rebuild">Whether to re-read the stored turns if it is of another Bundle.</param>
        /// <param name="cancellation">Ends the waiting.</param>
        /// <exception cref="NpcException">BadSave, SaveMismatch, NpcExists and others.</exception>
        public Task<NpcInfo> RestoreAsync(
            string npc, byte[] data, bool replace = false, bool rebuild = false, CancellationToken cancellation = default) =>
            Ask(Requests.Restore(npc, data, replace, rebuild), told => new NpcInfo(told), cancellation, npc, data);

        /// <summary>A second Npc with the same State, free to differ from now on.</summary>
        /// <exception cref="NpcException">UnknownNpc, NpcExists, NpcBusy and others.</exception>
        public Task<NpcInfo> ForkAsync(string npc, string to, bool replace = false, CancellationToken cancellation = default) =>
            Ask(Requests.Fork(npc, to, replace), told => new NpcInfo(told), cancellation, npc, to);

        /// <summary>Takes back an Npc's last Turns; nothing is read again.</summary>
        /// <exception cref="NpcException">NothingToRewind, UnknownNpc, NpcBusy.</exception>
        public Task<NpcInfo> RewindAsync(string npc, int turns = 1, CancellationToken cancellation = default) =>
            Ask(Requests.Rewind(npc, turns), told => new NpcInfo(told), cancellation, npc);

        /// <summary>Writes Npcs (null: all) to a file; an older file of that name stays whole until the new one is.</summary>
        /// <exception cref="NpcException">SaveFailed, UnknownNpc and others.</exception>
        public Task<Saved> SaveAsync(string path, IReadOnlyList<string>? npcs = null, CancellationToken cancellation = default) =>
            Ask(Requests.Save(Placed(path), npcs), told => new Saved(told), cancellation);

        /// <summary>Reads Npcs (null: all) from a file: every one of them or none.</summary>
        /// <exception cref="NpcException">BadSave, SaveMismatch, NpcExists and others.</exception>
        public Task<Loaded> LoadAsync(
            string path,
            IReadOnlyList<string>? npcs = null,
            bool replace = false,
            bool rebuild = false,
            CancellationToken cancellation = default) =>
            Ask(Requests.Load(Placed(path), npcs, replace, rebuild), told => new Loaded(told), cancellation);

        /// <summary>Forgets an Npc.</summary>
        /// <exception cref="NpcException">UnknownNpc.</exception>
        public Task DropAsync(string npc, CancellationToken cancellation = default) =>
            Ask(Requests.Of("drop", npc), told => true, cancellation, npc);

        /// <summary>The Session's Npcs.</summary>
        public Task<IReadOnlyList<NpcInfo>> ListAsync(CancellationToken cancellation = default) =>
            Ask(Requests.Bare("list"), told => told.Subs("npcs", npc => new NpcInfo(npc)), cancellation);

        /// <summary>Counters of the daemon: long, double, string, lists and maps of these.</summary>
        public Task<IReadOnlyDictionary<string, object?>> StatsAsync(CancellationToken cancellation = default) =>
            Ask<IReadOnlyDictionary<string, object?>>(Requests.Bare("stats"), told => told.Map, cancellation);

        /// <summary>Asks whether the daemon lives.</summary>
        public Task PingAsync(CancellationToken cancellation = default) => Ask(Requests.Bare("ping"), told => true, cancellation);

        /// <summary>Leaves the Session.</summary>
        /// <param name="keep">Whether its Npcs stay for the return of its name; null: as the daemon is set.</param>
        /// <param name="cancellation">Ends the waiting.</param>
        public Task ByeAsync(bool? keep = null, CancellationToken cancellation = default) =>
            Ask(Requests.Bye(keep), told => true, cancellation);

        private Task<Spawned> Spawn(string npc, object persona, long? seed, bool replace, CancellationToken cancellation)
        {
            Given(persona, nameof(persona));
            return Ask(Requests.Spawn(npc, persona, seed, replace), told => new Spawned(told), cancellation, npc);
        }

        private void Cut(string npc, int heard)
        {
            if (!_disposed)
            {
                Connection.Send(Requests.Cancel(npc, heard), Unheard.Instance);
            }
        }

        /// <summary>The path as the daemon understands it: it may stand in another folder than we do.</summary>
        private string Placed(string path)
        {
            Given(path, nameof(path));
            return Hello.RelativePaths ? path : Path.GetFullPath(path);
        }

        private Task<T> Ask<T>(
            Dictionary<string, object?> body, Func<Fields, T> read, CancellationToken cancellation, params object?[] given)
        {
            foreach (object? value in given)
            {
                Given(value, $"an argument of `{body["op"]}`");
            }
            cancellation.ThrowIfCancellationRequested();
            if (_disposed)
            {
                throw new ObjectDisposedException(nameof(NpcClient));
            }
            var pending = new Pending<T>(read, cancellation);
            Connection.Send(body, pending);
            return pending.Result;
        }
    }
}

#nullable enable
using System.Collections.Generic;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;

namespace NpcRuntime
{
    /// <summary>
    /// Who lives in a daemon of ours, and the State of each as it was last held, so that a daemon that died can be given back
    /// what it held. From any thread.
    /// </summary>
    public sealed class NpcCast
    {
        private readonly object _guard = new object();
        private readonly Dictionary<string, Entry> _entries = new Dictionary<string, Entry>();

        /// <summary>Ids of all who live.</summary>
        public IReadOnlyList<string> Ids
        {
            get
            {
                lock (_guard)
                {
                    return _entries.Keys.ToArray();
                }
            }
        }

        /// <summary>Notes an Npc that was spawned from a name or path.</summary>
        public void Spawned(Spawned npc, string persona) => Set(npc.Npc, new Entry(persona, null, npc.Seed));

        /// <summary>Notes an Npc that was spawned from a table.</summary>
        public void Spawned(Spawned npc, IReadOnlyDictionary<string, object?> persona) => Set(npc.Npc, new Entry(null, persona, npc.Seed));

        /// <summary>Notes an Npc that was restored or forked: it is known by its State alone.</summary>
        public void Restored(string npc, byte[] state)
        {
            lock (_guard)
            {
                if (!_entries.TryGetValue(npc, out Entry? entry))
                {
                    _entries[npc] = entry = new Entry(null, null, 0);
                }
                entry.State = state;
            }
        }

        /// <summary>Notes an Npc that is no more.</summary>
        public void Dropped(string npc)
        {
            lock (_guard)
            {
                _entries.Remove(npc);
            }
        }

        /// <summary>Whether an Npc lives.</summary>
        public bool Has(string npc)
        {
            lock (_guard)
            {
                return _entries.ContainsKey(npc);
            }
        }

        /// <summary>Takes a snapshot of an Npc at rest, to be given back to the next daemon.</summary>
        /// <exception cref="NpcException">NpcBusy and others; the State held before stays.</exception>
        public async Task HoldAsync(NpcClient client, string npc, CancellationToken cancellation = default) =>
            Restored(npc, await client.SnapshotAsync(npc, cancellation).ConfigureAwait(false));

        /// <summary>Gives a new daemon what the old one held: the last State of each, else its Persona anew.</summary>
        /// <exception cref="NpcException">The connection was lost again.</exception>
        public async Task<Revival> ReviveAsync(NpcClient client, CancellationToken cancellation = default)
        {
            var revival = new Revival();
            foreach (string npc in Ids)
            {
                Entry? entry = Get(npc);
                try
                {
                    (entry?.State != null ? revival.RestoredList : revival.AnewList).Add(npc);
                    await Revive(client, npc, entry, cancellation).ConfigureAwait(false);
                }
                catch (NpcException error) when (client.IsConnected)
                {
                    revival.RestoredList.Remove(npc);
                    revival.AnewList.Remove(npc);
                    revival.LostMap[npc] = error;
                    Dropped(npc);
                }
            }
            return revival;
        }

        private static Task Revive(NpcClient client, string npc, Entry? entry, CancellationToken cancellation)
        {
            if (entry?.State != null)
            {
                return client.RestoreAsync(npc, entry.State, true, true, cancellation);
            }
            if (entry?.Table != null)
            {
                return client.SpawnAsync(npc, entry.Table, entry.Seed, true, cancellation);
            }
            string name = entry?.Name ?? throw new NpcException(NpcErrorCode.UnknownNpc, $"nothing is held of `{npc}`");
            return client.SpawnAsync(npc, name, entry.Seed, true, cancellation);
        }

        private Entry? Get(string npc)
        {
            lock (_guard)
            {
                _entries.TryGetValue(npc, out Entry? entry);
                return entry;
            }
        }

        private void Set(string npc, Entry entry)
        {
            lock (_guard)
            {
                _entries[npc] = entry;
            }
        }

        /// <summary>Who came back after a daemon's death, and how.</summary>
        public sealed class Revival
        {
            internal List<string> RestoredList { get; } = new List<string>();

            internal List<string> AnewList { get; } = new List<string>();

            internal Dictionary<string, NpcException> LostMap { get; } = new Dictionary<string, NpcException>();

            /// <summary>Ids of those who remember as before the last snapshot.</summary>
            public IReadOnlyList<string> Restored => RestoredList;

            /// <summary>Ids of those who begin anew.</summary>
            public IReadOnlyList<string> Anew => AnewList;

            /// <summary>Ids of those who could not be brought back, with the reason.</summary>
            public IReadOnlyDictionary<string, NpcException> Lost => LostMap;
        }

        private sealed class Entry
        {
            internal Entry(string? name, IReadOnlyDictionary<string, object?>? table, long seed)
            {
                Name = name;
                Table = table;
                Seed = seed;
            }

            internal string? Name { get; }

            internal IReadOnlyDictionary<string, object?>? Table { get; }

            internal long Seed { get; }

            internal byte[]? State { get; set; }
        }
    }
}

#nullable enable
using System.Collections.Generic;
using System.Threading;
using System.Threading.Tasks;
using NpcRuntime.Wire;

namespace NpcRuntime
{
    /// <summary>Npcs as bytes, to lie inside a game's own save: a map of snapshots, each checked by the daemon when it is restored.</summary>
    public static class NpcSave
    {
        private const int Format = 1;
        private const int Attempts = 100;
        private const int PauseMs = 30;
        private const string FormatField = "npc_save";
        private const string NpcsField = "npcs";

        /// <summary>Takes a snapshot of each Npc, waiting up to three seconds for one that is speaking.</summary>
        /// <param name="client">The daemon they live in.</param>
        /// <param name="npcs">Their ids; null: all of the Session.</param>
        /// <param name="cancellation">Gives up.</param>
        /// <exception cref="NpcException">NpcBusy: an Npc speaks on and on; and others.</exception>
        public static async Task<byte[]> CaptureAsync(
            NpcClient client, IReadOnlyList<string>? npcs = null, CancellationToken cancellation = default)
        {
            if (npcs == null)
            {
                var all = new List<string>();
                foreach (NpcInfo npc in await client.ListAsync(cancellation).ConfigureAwait(false))
                {
                    all.Add(npc.Npc);
                }
                npcs = all;
            }
            var snapshots = new Dictionary<string, object?>();
            foreach (string npc in npcs)
            {
                snapshots[npc] = await AtRest(client, npc, cancellation).ConfigureAwait(false);
            }
            return MsgPackWriter.Pack(new Dictionary<string, object?> { [FormatField] = Format, [NpcsField] = snapshots });
        }

        private static async Task<byte[]> AtRest(NpcClient client, string npc, CancellationToken cancellation)
        {
            for (int left = Attempts; ; left--)
            {
                try
                {
                    return await client.SnapshotAsync(npc, cancellation).ConfigureAwait(false);
                }
                catch (NpcException error) when (error.Kind == NpcErrorCode.NpcBusy && left > 1)
                {
                    await Task.Delay(PauseMs, cancellation).ConfigureAwait(false);
                }
            }
        }

        /// <summary>Brings all Npcs of a save back, in the place of those that live under their ids.</summary>
        /// <param name="client">The daemon they shall live in.</param>
        /// <param name="save">Of <see cref="CaptureAsync"/>.</param>
        /// <param name="rebuild">Whether to re-read the stored turns if the save is of another Bundle.</param>
        /// <param name="cancellation">Gives up; those restored so far stay.</param>
        /// <exception cref="NpcException">BadSave: damaged, nothing was changed, or one snapshot is: those before it are back; SaveMismatch and others.</exception>
        public static async Task<IReadOnlyList<NpcInfo>> RestoreAsync(
            NpcClient client, byte[] save, bool rebuild = false, CancellationToken cancellation = default)
        {
            var restored = new List<NpcInfo>();
            foreach (KeyValuePair<string, byte[]> npc in Read(save))
            {
                restored.Add(await client.RestoreAsync(npc.Key, npc.Value, true, rebuild, cancellation).ConfigureAwait(false));
            }
            return restored;
        }

        /// <summary>The snapshots of a save by the id of their Npc.</summary>
        /// <exception cref="NpcException">BadSave: damaged, or of a later version.</exception>
        public static IReadOnlyDictionary<string, byte[]> Read(byte[] save)
        {
            try
            {
                var told = new Fields(MsgPackReader.Unpack(save) as Dictionary<string, object?> ?? throw NpcException.BadFrame("no map"));
                if (told.Long(FormatField) != Format)
                {
                    throw NpcException.BadFrame($"format {told.Long(FormatField)}, this client reads {Format}");
                }
                Fields npcs = told.Sub(NpcsField);
                var snapshots = new Dictionary<string, byte[]>();
                foreach (string npc in npcs.Map.Keys)
                {
                    snapshots[npc] = npcs.Data(npc);
                }
                return snapshots;
            }
            catch (NpcException error) when (error.Kind == NpcErrorCode.BadFrame)
            {
                throw new NpcException(NpcErrorCode.BadSave, $"these bytes are no save of Npcs: {error.Message}", "Load an older save", inner: error);
            }
        }
    }
}

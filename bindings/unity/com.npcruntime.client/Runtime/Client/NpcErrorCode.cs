#nullable enable

namespace NpcRuntime
{
    /// <summary>What went wrong, stable across versions and languages; the wire's spelling is <see cref="NpcException.Code"/>.</summary>
    public enum NpcErrorCode
    {
        /// <summary>A defect of npc-runtime, or a code of a newer daemon: see <see cref="NpcException.Code"/>.</summary>
        Internal,

        /// <summary>A field has the wrong type, range or text.</summary>
        BadInput,

        /// <summary>A message, text or list is over its limit.</summary>
        TooLarge,

        /// <summary>The daemon does not know this operation.</summary>
        UnknownOp,

        /// <summary>No Npc lives under this id.</summary>
        UnknownNpc,

        /// <summary>No persona of this name was found.</summary>
        UnknownPersona,

        /// <summary>The id is taken.</summary>
        NpcExists,

        /// <summary>The Npc has Turns under way and the verb needs it at rest.</summary>
        NpcBusy,

        /// <summary>Fewer rewind points are kept than were asked for.</summary>
        NothingToRewind,

        /// <summary>An option or limit is wrong.</summary>
        BadConfig,

        /// <summary>A file cannot be used.</summary>
        BadFile,

        /// <summary>A persona file or table is wrong.</summary>
        BadPersona,

        /// <summary>A Bundle is missing, damaged or of another version.</summary>
        BadBundle,

        /// <summary>A save is damaged, truncated or of another version.</summary>
        BadSave,

        /// <summary>A save was made with another Bundle.</summary>
        SaveMismatch,

        /// <summary>A save could not be written; the older one stands.</summary>
        SaveFailed,

        /// <summary>A journal is in use, damaged or of another Bundle.</summary>
        BadJournal,

        /// <summary>The daemon's journal could not be written; it is tried again.</summary>
        JournalFailed,

        /// <summary>A bound was reached; nothing was lost.</summary>
        Overloaded,

        /// <summary>Too many Turns or requests wait already.</summary>
        QueueFull,

        /// <summary>No memory is left for another State.</summary>
        BudgetExceeded,

        /// <summary>A Turn ended without a Reply.</summary>
        TurnFailed,

        /// <summary>The Turn was cancelled before the Npc heard it.</summary>
        Cancelled,

        /// <summary>The Turn did not begin before its deadline.</summary>
        Deadline,

        /// <summary>The computation failed; the State is as before.</summary>
        BackendFailed,

        /// <summary>The asked backend cannot run here.</summary>
        BackendUnavailable,

        /// <summary>A frame could not be read.</summary>
        BadFrame,

        /// <summary>Client and daemon share no protocol version.</summary>
        ProtocolVersion,

        /// <summary>The first message must be <c>hello</c>.</summary>
        HelloFirst,

        /// <summary>The daemon refused the key.</summary>
        WrongKey,

        /// <summary>The daemon went away or does not answer.</summary>
        ConnectionLost,

        /// <summary>The daemon is ending.</summary>
        ShuttingDown,

        /// <summary>Of this client: the program npc-runtime was not found or could not be started.</summary>
        DaemonMissing,

        /// <summary>Of this client: the program npc-runtime ended, or was silent, before it was ready.</summary>
        DaemonFailed,

        /// <summary>Of this client: the scene has no <c>NpcRuntimeHost</c>, or it has not connected.</summary>
        NoRuntime,
    }
}

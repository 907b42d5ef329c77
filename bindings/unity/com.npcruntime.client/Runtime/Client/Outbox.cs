#nullable enable
using System.Collections.Generic;

namespace NpcRuntime
{
    /// <summary>Frames that wait to be sent: bounded, so that a daemon that does not read cannot fill our memory.</summary>
    internal sealed class Outbox
    {
        internal const int MaxFrames = 1024;
        internal const long MaxBytes = 256L << 20;

        private readonly Queue<byte[]> _frames = new Queue<byte[]>();
        private long _bytes;

        internal bool IsEmpty => _frames.Count == 0;

        internal bool TryAdd(byte[] frame)
        {
            if (_frames.Count >= MaxFrames || (_frames.Count > 0 && _bytes + frame.Length > MaxBytes))
            {
                return false;
            }
            _frames.Enqueue(frame);
            _bytes += frame.Length;
            return true;
        }

        internal bool TryTake(out byte[] frame)
        {
            bool any = _frames.TryDequeue(out frame!);
            _bytes -= any ? frame.Length : 0;
            return any;
        }
    }
}

#nullable enable
using System;
using System.Collections.Generic;
using System.IO;
using System.Text;

namespace NpcRuntime.Wire
{
    /// <summary>
    /// ZMTP 3.1 as a DEALER with the PLAIN mechanism, without a socket: bytes in, messages out.
    /// Sources: rfc.zeromq.org spec 23 (greeting, frames), 24 (PLAIN), 37 (PING and PONG).
    /// </summary>
    internal sealed class Zmtp
    {
        /// <summary>User name that the daemon expects; its key is the password.</summary>
        internal const string User = "npc";

        private const int GreetingBytes = 64;
        private const int KeepBytes = 1 << 18;
        private const byte More = 1;
        private const byte Long = 2;
        private const byte Command = 4;
        private static readonly byte[] Mechanism = Encoding.ASCII.GetBytes("PLAIN");

        private readonly byte[] _key;
        private readonly long _maxBytes;
        private readonly Queue<byte[]> _outgoing = new Queue<byte[]>();
        private byte[] _buffer = new byte[4096];
        private int _start;
        private int _end;
        private Stage _stage = Stage.Greeting;

        internal Zmtp(string key, long maxBytes)
        {
            _key = Encoding.UTF8.GetBytes(key);
            if (_key.Length > 255)
            {
                throw new NpcException(NpcErrorCode.WrongKey, $"a key may hold 255 bytes, got {_key.Length}");
            }
            _maxBytes = maxBytes;
            _outgoing.Enqueue(Greeting());
        }

        private enum Stage
        {
            Greeting,
            Welcome,
            Ready,
            Open,
        }

        /// <summary>True once messages may be sent.</summary>
        internal bool IsOpen => _stage == Stage.Open;

        /// <summary>The 64 bytes that open a connection.</summary>
        internal static byte[] Greeting()
        {
            var bytes = new byte[GreetingBytes];
            bytes[0] = 0xFF;
            bytes[9] = 0x7F;
            bytes[10] = 3;
            bytes[11] = 1;
            Mechanism.CopyTo(bytes, 12);
            return bytes;
        }

        /// <summary>A message of one frame.</summary>
        internal static byte[] Message(byte[] body) => Frame(body, 0);

        /// <summary>Bytes of our own to send: handshake and answers to PING. False when there are none.</summary>
        internal bool TryTakeOutgoing(out byte[] bytes) => _outgoing.TryDequeue(out bytes!);

        /// <summary>Takes bytes from the peer; nothing is done with them before <see cref="TryNext"/>.</summary>
        internal void Feed(ReadOnlySpan<byte> chunk)
        {
            if (_start == _end)
            {
                _start = _end = 0;
            }
            if (_buffer.Length - _end < chunk.Length)
            {
                MakeRoom(chunk.Length);
            }
            chunk.CopyTo(_buffer.AsSpan(_end));
            _end += chunk.Length;
        }

        /// <summary>The next whole message; it lies in a buffer that the next call of <see cref="Feed"/> overwrites.</summary>
        /// <exception cref="NpcException">BadFrame, TooLarge, WrongKey or BadConfig: the connection is of no more use.</exception>
        internal bool TryNext(out ReadOnlyMemory<byte> message)
        {
            message = default;
            if (_stage == Stage.Greeting && !ReadGreeting())
            {
                return false;
            }
            while (TryFrame(out byte flags, out ReadOnlyMemory<byte> body))
            {
                if ((flags & Command) != 0)
                {
                    Obey(body.Span);
                }
                else if (_stage != Stage.Open)
                {
                    throw NpcException.BadFrame("a message before the handshake had ended");
                }
                else
                {
                    message = body;
                    return true;
                }
            }
            return false;
        }

        private static byte[] Frame(byte[] body, byte flags)
        {
            bool wide = body.Length > 255;
            var frame = new byte[body.Length + (wide ? 9 : 2)];
            frame[0] = (byte)(flags | (wide ? Long : 0));
            for (int i = 1, size = body.Length; i <= 4 && size > 0; i++, size >>= 8)
            {
                frame[(wide ? 9 : 2) - i] = (byte)size;
            }
            body.CopyTo(frame, frame.Length - body.Length);
            return frame;
        }

        /// <summary>Moves what is unread to the front, of a larger buffer when it fills this one; never larger than what came demands.</summary>
        private void MakeRoom(int count)
        {
            int unread = _end - _start;
            int needed = checked(unread + count);
            bool fits = needed <= _buffer.Length && (needed > KeepBytes || _buffer.Length <= KeepBytes);
            byte[] room = fits ? _buffer : new byte[Math.Max(needed, (int)Math.Min(2L * needed, 0x7FFFFFC7))];
            Buffer.BlockCopy(_buffer, _start, room, 0, unread);
            _buffer = room;
            _start = 0;
            _end = unread;
        }

        private bool ReadGreeting()
        {
            ReadOnlySpan<byte> have = _buffer.AsSpan(_start, Math.Min(_end - _start, GreetingBytes));
            if ((have.Length > 0 && have[0] != 0xFF) || (have.Length > 9 && have[9] != 0x7F))
            {
                throw NpcException.BadFrame("the other side does not speak ZMTP");
            }
            if (have.Length > 10 && have[10] < 3)
            {
                throw NpcException.BadFrame($"the other side speaks ZMTP {have[10]}, expected 3");
            }
            if (have.Length < GreetingBytes)
            {
                return false;
            }
            if (!have.Slice(12, 20).SequenceEqual(Greeting().AsSpan(12, 20)))
            {
                throw new NpcException(
                    NpcErrorCode.BadConfig,
                    "the daemon demands another mechanism than PLAIN, probably CURVE, which this client does not speak",
                    "Reach a daemon on another machine through a tunnel that ends at its loopback address");
            }
            _start += GreetingBytes;
            _stage = Stage.Welcome;
            Send("HELLO", body => { Short(body, Encoding.ASCII.GetBytes(User)); Short(body, _key); });
            return true;
        }

        /// <summary>The next whole frame; refuses what has unknown flags, several parts, or is too long.</summary>
        private bool TryFrame(out byte flags, out ReadOnlyMemory<byte> body)
        {
            body = default;
            flags = 0;
            int have = _end - _start;
            if (have < 2)
            {
                return false;
            }
            flags = _buffer[_start];
            if ((flags & ~(Long | Command)) != 0)
            {
                throw NpcException.BadFrame(
                    (flags & More) != 0 ? "a message of several frames, expected one" : $"a frame with flags 0x{flags:x2}");
            }
            int head = (flags & Long) != 0 ? 9 : 2;
            if (have < head)
            {
                return false;
            }
            ulong size = 0;
            for (int i = 1; i < head; i++)
            {
                size = (size << 8) | _buffer[_start + i];
            }
            if (size > (ulong)_maxBytes)
            {
                throw new NpcException(NpcErrorCode.TooLarge, $"a frame of {size} bytes, at most {_maxBytes} are read");
            }
            if ((ulong)(have - head) < size)
            {
                return false;
            }
            body = _buffer.AsMemory(_start + head, (int)size);
            _start += head + (int)size;
            return true;
        }

        private void Obey(ReadOnlySpan<byte> body)
        {
            int length = body.Length > 0 ? body[0] : 0;
            bool misspelled = body.StartsWith(Encoding.ASCII.GetBytes("^RROR")); // libzmq 4.3.x writes ERROR so
            if (!misspelled && (length == 0 || body.Length < 1 + length))
            {
                throw NpcException.BadFrame("a command without a name");
            }
            string name = misspelled ? "ERROR" : Encoding.ASCII.GetString(body.Slice(1, length));
            ReadOnlySpan<byte> rest = body.Slice(misspelled ? 5 : 1 + length);
            if (_stage == Stage.Open)
            {
                Chat(name, rest);
            }
            else
            {
                Shake(name, rest);
            }
        }

        private void Chat(string name, ReadOnlySpan<byte> rest)
        {
            if (name == "PING" && rest.Length >= 2)
            {
                byte[] context = rest.Slice(2, Math.Min(16, rest.Length - 2)).ToArray();
                Send("PONG", body => body.Write(context, 0, context.Length));
            }
        }

        private void Shake(string name, ReadOnlySpan<byte> rest)
        {
            if (name == "ERROR")
            {
                string reason = rest.Length > 0 ? Encoding.ASCII.GetString(rest.Slice(1, Math.Min(rest[0], rest.Length - 1))) : "";
                throw new NpcException(
                    NpcErrorCode.WrongKey,
                    $"the daemon refused the key (ZMTP error {reason})",
                    "Take endpoint and key from the ready line of the same daemon; each launch has a fresh key");
            }
            if (name == "WELCOME" && _stage == Stage.Welcome)
            {
                _stage = Stage.Ready;
                Send("INITIATE", body => Property(body, "Socket-Type", "DEALER"));
            }
            else if (name == "READY" && _stage == Stage.Ready)
            {
                _stage = Stage.Open;
            }
            else
            {
                throw NpcException.BadFrame("an unexpected command in the handshake");
            }
        }

        private void Send(string name, Action<MemoryStream> write)
        {
            var body = new MemoryStream();
            Short(body, Encoding.ASCII.GetBytes(name));
            write(body);
            _outgoing.Enqueue(Frame(body.ToArray(), Command));
        }

        private static void Short(MemoryStream body, byte[] bytes)
        {
            body.WriteByte((byte)bytes.Length);
            body.Write(bytes, 0, bytes.Length);
        }

        private static void Property(MemoryStream body, string name, string value)
        {
            Short(body, Encoding.ASCII.GetBytes(name));
            body.Write(new byte[3], 0, 3); // the value's length in four bytes, here always under 256
            Short(body, Encoding.ASCII.GetBytes(value));
        }
    }
}

#nullable enable
using System;
using System.Net;
using System.Net.Sockets;
using System.Threading;

namespace NpcRuntime
{
    /// <summary>
    /// A TCP socket used by one thread that never blocks in it: what has ended sets <c>woken</c>. One receive and one send are
    /// under way at most, and their buffers are used again and again, so that an idle or streaming connection makes no garbage.
    /// </summary>
    internal sealed class Link : IDisposable
    {
        private const int ChunkBytes = 1 << 16;

        private readonly Socket _socket;
        private readonly SocketAsyncEventArgs _connecting = new SocketAsyncEventArgs();
        private readonly SocketAsyncEventArgs _receiving = new SocketAsyncEventArgs();
        private readonly SocketAsyncEventArgs _sending = new SocketAsyncEventArgs();
        private readonly byte[] _chunk = new byte[ChunkBytes];
        private readonly AutoResetEvent _woken;
        private bool _connected;
        private bool _received;
        private bool _sent;
        private bool _listening;
        private bool _handed;

        internal Link(string host, int port, AutoResetEvent woken)
        {
            _woken = woken;
            IPAddress address = host == "localhost" ? IPAddress.Loopback : IPAddress.Parse(host);
            _socket = new Socket(address.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
            _connecting.RemoteEndPoint = new IPEndPoint(address, port);
            _connecting.Completed += (sender, told) => Ended(ref _connected);
            _receiving.Completed += (sender, told) => Ended(ref _received);
            _sending.Completed += (sender, told) => Ended(ref _sent);
            _receiving.SetBuffer(_chunk, 0, _chunk.Length);
            if (!_socket.ConnectAsync(_connecting))
            {
                Ended(ref _connected);
            }
        }

        /// <summary>Whether <see cref="Send"/> may be called.</summary>
        /// <exception cref="NpcException">ConnectionLost.</exception>
        internal bool CanSend
        {
            get
            {
                if (!Connected)
                {
                    return false;
                }
                while (_handed && Volatile.Read(ref _sent))
                {
                    Check(_sending.SocketError);
                    int left = _sending.Count - _sending.BytesTransferred;
                    _handed = left > 0;
                    if (_handed)
                    {
                        _sending.SetBuffer(_sending.Offset + _sending.BytesTransferred, left);
                        Begin();
                    }
                }
                return !_handed;
            }
        }

        private bool Connected
        {
            get
            {
                bool connected = Volatile.Read(ref _connected);
                if (connected)
                {
                    Check(_connecting.SocketError);
                }
                return connected;
            }
        }

        public void Dispose() => _socket.Dispose();

        /// <summary>Bytes that came; they are overwritten after the next call. False when there are none yet.</summary>
        /// <exception cref="NpcException">ConnectionLost.</exception>
        internal bool TryReceive(out ReadOnlyMemory<byte> chunk)
        {
            chunk = default;
            if (!Connected)
            {
                return false;
            }
            if (!_listening)
            {
                _listening = true;
                _received = false;
                if (!_socket.ReceiveAsync(_receiving))
                {
                    _received = true;
                }
            }
            if (!Volatile.Read(ref _received))
            {
                return false;
            }
            Check(_receiving.SocketError);
            if (_receiving.BytesTransferred == 0)
            {
                throw NpcException.Lost("the daemon closed the connection");
            }
            _listening = false;
            chunk = _chunk.AsMemory(0, _receiving.BytesTransferred);
            return true;
        }

        /// <summary>Begins to send; only when <see cref="CanSend"/>.</summary>
        internal void Send(byte[] frame)
        {
            _handed = true;
            _sending.SetBuffer(frame, 0, frame.Length);
            Begin();
        }

        private static void Check(SocketError error)
        {
            if (error == SocketError.ConnectionRefused)
            {
                throw NpcException.Lost("no daemon listens there");
            }
            if (error != SocketError.Success)
            {
                throw NpcException.Lost($"the connection broke: {error}");
            }
        }

        private void Begin()
        {
            _sent = false;
            if (!_socket.SendAsync(_sending))
            {
                _sent = true;
            }
        }

        private void Ended(ref bool flag)
        {
            Volatile.Write(ref flag, true);
            _woken.Set();
        }
    }
}

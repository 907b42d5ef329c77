#nullable enable
using System;
using System.Threading;
using System.Threading.Tasks;
using NpcRuntime.Wire;

namespace NpcRuntime
{
    /// <summary>
    /// A game's end of a daemon: the verbs, each to be awaited, from any thread. Failures are <see cref="NpcException"/>.
    /// A token that is cancelled ends the waiting; for speech it also cuts the Npc short.
    /// </summary>
    public sealed partial class NpcClient : IDisposable, IAsyncDisposable
    {
        private static readonly TimeSpan PartingTime = TimeSpan.FromSeconds(2);
        private static readonly TimeSpan EndingTime = TimeSpan.FromSeconds(8);

        private readonly TimeSpan _timeout;
        private readonly DaemonOptions? _options;
        private readonly string _session;
        private readonly SemaphoreSlim _opening = new SemaphoreSlim(1, 1);
        private string _endpoint;
        private string _key;
        private NpcDaemon? _daemon;
        private volatile NpcConnection? _connection;
        private volatile bool _disposed;

        private NpcClient(string endpoint, string key, string session, TimeSpan timeout, NpcDaemon? daemon, DaemonOptions? options)
        {
            _endpoint = endpoint;
            _key = key;
            _session = session;
            _timeout = timeout;
            _daemon = daemon;
            _options = options;
        }

        /// <summary>What the daemon told of itself when we connected.</summary>
        public Hello Hello { get; private set; } = null!;

        /// <summary>The daemon that we started; null for one that ran already.</summary>
        public NpcDaemon? Daemon => _daemon;

        /// <summary>Whether verbs can be sent.</summary>
        public bool IsConnected => !_disposed && !Connection.WhenLost.IsCompleted;

        /// <summary>Ends, with the reason and never as failed, when the present connection is lost. See <see cref="ReconnectAsync"/>.</summary>
        public Task<NpcException> WhenLost => Connection.WhenLost;

        private NpcConnection Connection => _connection ?? throw new ObjectDisposedException(nameof(NpcClient));

        /// <summary>Connects to a running daemon by the endpoint and key of its ready line.</summary>
        /// <param name="endpoint">As <c>tcp://127.0.0.1:5555</c>: loopback only.</param>
        /// <param name="key">The daemon's key.</param>
        /// <param name="session">A name under which the Npcs can be returned to; without one they end with the connection.</param>
        /// <param name="timeout">How long it may take; 10 s when null.</param>
        /// <param name="cancellation">Gives up.</param>
        /// <exception cref="NpcException">ConnectionLost, WrongKey, ProtocolVersion, Overloaded or BadConfig.</exception>
        public static async Task<NpcClient> ConnectAsync(
            string endpoint, string key, string session = "", TimeSpan? timeout = null, CancellationToken cancellation = default)
        {
            Given(endpoint, nameof(endpoint));
            Given(key, nameof(key));
            Given(session, nameof(session));
            var client = new NpcClient(endpoint, key, session, timeout ?? TimeSpan.FromSeconds(10), null, null);
            await client.Open(cancellation).ConfigureAwait(false);
            return client;
        }

        /// <summary>Starts a daemon of our own, which ends with <see cref="Dispose"/> or with this process, and connects to it.</summary>
        /// <param name="options">How it is started; null: <c>npc-runtime</c> on the PATH with its own Bundle.</param>
        /// <param name="session">Name of the Session.</param>
        /// <param name="cancellation">Gives up, and ends the daemon.</param>
        /// <exception cref="NpcException">DaemonMissing, DaemonFailed, or what <see cref="ConnectAsync"/> raises.</exception>
        public static async Task<NpcClient> StartAsync(
            DaemonOptions? options = null, string session = "game", CancellationToken cancellation = default)
        {
            Given(session, nameof(session));
            options ??= new DaemonOptions();
            NpcDaemon daemon = await NpcDaemon.StartAsync(options, cancellation).ConfigureAwait(false);
            var client = new NpcClient(daemon.Endpoint, daemon.Key, session, TimeSpan.FromSeconds(10), daemon, options);
            try
            {
                await client.Open(cancellation).ConfigureAwait(false);
                return client;
            }
            catch
            {
                daemon.Stop(TimeSpan.Zero);
                daemon.Dispose();
                throw;
            }
        }

        /// <summary>Opens a new connection to the same daemon and Session after ConnectionLost.</summary>
        /// <exception cref="NpcException">As <see cref="ConnectAsync"/>.</exception>
        public async Task ReconnectAsync(CancellationToken cancellation = default)
        {
            await _opening.WaitAsync(cancellation).ConfigureAwait(false);
            try
            {
                Connection.Dispose();
                await Open(cancellation).ConfigureAwait(false);
            }
            finally
            {
                _opening.Release();
            }
        }

        /// <summary>Ends our daemon if it lives, starts another in the same way and connects. It knows no Npc: load or restore them.</summary>
        /// <exception cref="NpcException">As <see cref="StartAsync"/>; BadConfig: the daemon was not started by us.</exception>
        public async Task RestartAsync(CancellationToken cancellation = default)
        {
            if (_options == null)
            {
                throw new NpcException(NpcErrorCode.BadConfig, "only a daemon that was started by StartAsync can be started again");
            }
            await _opening.WaitAsync(cancellation).ConfigureAwait(false);
            try
            {
                Connection.Dispose();
                EndDaemon(TimeSpan.Zero);
                NpcDaemon daemon = await NpcDaemon.StartAsync(_options, cancellation).ConfigureAwait(false);
                _daemon = daemon;
                _endpoint = daemon.Endpoint;
                _key = daemon.Key;
                await Open(cancellation).ConfigureAwait(false);
            }
            catch (ObjectDisposedException)
            {
                EndDaemon(TimeSpan.Zero); // we were left while the new one started
                throw;
            }
            finally
            {
                _opening.Release();
            }
        }

        /// <summary>Leaves the daemon, waiting a moment at most; ends it if we started it. More than once is harmless.</summary>
        public void Dispose()
        {
            if (_disposed)
            {
                return;
            }
            Task parting = Part();
            _disposed = true;
            try
            {
                parting.Wait(PartingTime);
            }
            catch (AggregateException)
            {
                // a daemon that cannot hear the goodbye notices by itself
            }
            _connection?.Dispose();
            EndDaemon(EndingTime);
        }

        /// <summary>As <see cref="Dispose"/>, without blocking the calling thread.</summary>
        public ValueTask DisposeAsync() => new ValueTask(Task.Run(Dispose));

        private static void Given(object? value, string name)
        {
            if (value == null)
            {
                throw new ArgumentNullException(name);
            }
        }

        private Task Part()
        {
            if (_connection == null || _connection.WhenLost.IsCompleted)
            {
                return Task.CompletedTask;
            }
            return Ask(_daemon == null ? Requests.Bye(null) : Requests.Bare("shutdown"), told => true, default);
        }

        private void EndDaemon(TimeSpan grace)
        {
            _daemon?.Stop(grace);
            _daemon?.Dispose();
            _daemon = null;
        }

        private async Task Open(CancellationToken cancellation)
        {
            if (_disposed)
            {
                throw new ObjectDisposedException(nameof(NpcClient));
            }
            var connection = new NpcConnection(_endpoint, _key, _session, _timeout);
            _connection = connection;
            using (cancellation.Register(connection.Leave))
            {
                try
                {
                    Hello = await connection.Greeting.ConfigureAwait(false);
                }
                catch (NpcException)
                {
                    connection.Dispose();
                    cancellation.ThrowIfCancellationRequested();
                    throw;
                }
            }
        }
    }
}

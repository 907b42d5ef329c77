#nullable enable
using System;
using System.Collections.Generic;
using System.Threading;
using System.Threading.Tasks;
using UnityEngine;
using UnityEngine.Events;

namespace NpcRuntime
{
    /// <summary>
    /// One per game: starts or finds the daemon, keeps the connection over scene changes, and brings everyone back when the
    /// daemon dies. Use its members on the main thread.
    /// </summary>
    [AddComponentMenu("NPC Runtime/Npc Runtime Host")]
    [DisallowMultipleComponent]
    [DefaultExecutionOrder(-100)]
    public sealed class NpcRuntimeHost : MonoBehaviour
    {
        private const int FirstBackoffMs = 100;
        private const int MostBackoffMs = 5000;

        [SerializeField, Tooltip("The program and its first arguments. A relative path with a slash is looked for in StreamingAssets.")]
        private string[] command = { "npc-runtime" };

        [SerializeField, Tooltip("Folder of the model. Empty: the one that npc-runtime brings.")]
        private string bundle = "";

        [SerializeField, Tooltip("Further options of `npc-runtime serve`, such as --threads 2.")]
        private string[] options = Array.Empty<string>();

        [SerializeField, Tooltip("A daemon that runs already, instead of one of our own: tcp://127.0.0.1:PORT")]
        private string endpoint = "";

        [SerializeField, Tooltip("The key of that daemon.")]
        private string key = "";

        [SerializeField, Tooltip("Name under which a daemon that runs already keeps our characters.")]
        private string session = "game";

        [SerializeField, Tooltip("Fetch each State after every Turn, so that a crash of the daemon loses nothing. Costs memory: a State each.")]
        private bool holdStates = true;

        [SerializeField, Tooltip("Attempts at a new connection or daemon before giving up.")]
        private int maxAttempts = 5;

        [SerializeField]
        private UnityEvent onConnected = new UnityEvent();

        [SerializeField]
        private UnityEvent<string> onFailed = new UnityEvent<string>();

        private readonly List<NpcCharacter> _speaking = new List<NpcCharacter>();
        private readonly HashSet<string> _stale = new HashSet<string>();
        private CancellationTokenSource? _life;
        private TaskCompletionSource<NpcClient> _ready = NewReady();
        private NpcClient? _client;
        private bool _holding;

        /// <summary>How things stand.</summary>
        public enum HostStage
        {
            /// <summary>Not started, or stopped.</summary>
            Off,

            /// <summary>Waits for the daemon.</summary>
            Starting,

            /// <summary>Verbs can be sent.</summary>
            Ready,

            /// <summary>The connection was lost; it is being brought back.</summary>
            Recovering,

            /// <summary>Given up; see <see cref="Trouble"/>.</summary>
            Failed,
        }

        /// <summary>The verbs can be sent.</summary>
        public event Action? Connected;

        /// <summary>The connection was lost, or could not be had.</summary>
        public event Action<NpcException>? Failed;

        /// <summary>A daemon died and another took its place: who remembers, and who had to begin anew.</summary>
        public event Action<NpcCast.Revival>? Recovered;

        /// <summary>The host in use; null before the first awakes.</summary>
        public static NpcRuntimeHost? Current { get; private set; }

        /// <summary>How things stand.</summary>
        public HostStage Stage { get; private set; }

        /// <summary>What went wrong last; null when all is well.</summary>
        public NpcException? Trouble { get; private set; }

        /// <summary>The verbs, for all that components do not do; null while not connected.</summary>
        public NpcClient? Client => Stage == HostStage.Ready ? _client : null;

        /// <summary>Who lives.</summary>
        public NpcCast Cast { get; } = new NpcCast();

        /// <summary>Begins to start or connect; done by itself when the component is enabled. Harmless when under way.</summary>
        public void Begin()
        {
            if (Stage == HostStage.Off || Stage == HostStage.Failed)
            {
                _life = new CancellationTokenSource();
                _ready = _ready.Task.IsCompleted ? NewReady() : _ready;
                Stage = HostStage.Starting;
                _ = Live(_life.Token);
            }
        }

        /// <summary>Names a daemon that runs already, for the next <see cref="Begin"/>; as the fields of the inspector.</summary>
        public void Use(string daemonEndpoint, string daemonKey)
        {
            endpoint = daemonEndpoint;
            key = daemonKey;
        }

        /// <summary>Leaves the daemon, and ends it if it is ours; done by itself on quit, destruction and domain reload.</summary>
        public void Stop()
        {
            _life?.Cancel();
            Stage = HostStage.Off;
            _ready.TrySetException(new NpcException(NpcErrorCode.ShuttingDown, "the game has left"));
            _ = _ready.Task.Exception;
            NpcClient? client = _client;
            _client = null;
            client?.Dispose();
            TellAll(); // whoever waits for a Reply learns that there will be none
        }

        /// <summary>Waits until verbs can be sent.</summary>
        /// <exception cref="NpcException">What the host gave up with, or ShuttingDown.</exception>
        public Task<NpcClient> ReadyAsync() => _ready.Task;

        /// <summary>The minds of all characters as bytes, for the game's own save.</summary>
        /// <exception cref="NpcException">NpcBusy: somebody speaks for more than three seconds; and others.</exception>
        public async Task<byte[]> SaveAsync(CancellationToken cancellation = default) =>
            await NpcSave.CaptureAsync(await ReadyAsync(), Cast.Ids, cancellation);

        /// <summary>Gives the minds of a save back to characters of the same ids.</summary>
        /// <exception cref="NpcException">BadSave, SaveMismatch and others.</exception>
        public async Task LoadAsync(byte[] save, bool rebuild = false, CancellationToken cancellation = default)
        {
            IReadOnlyDictionary<string, byte[]> states = NpcSave.Read(save);
            await NpcSave.RestoreAsync(await ReadyAsync(), save, rebuild, cancellation);
            foreach (KeyValuePair<string, byte[]> state in states)
            {
                Cast.Restored(state.Key, state.Value);
            }
        }

        /// <summary>Counts an Npc's State as changed, so that it is fetched soon.</summary>
        internal void Touch(string npc)
        {
            if (holdStates)
            {
                _stale.Add(npc);
            }
        }

        /// <summary>Lets a character tell its Pieces in every frame until it says that it has no more.</summary>
        internal void Listen(NpcCharacter character)
        {
            if (!_speaking.Contains(character))
            {
                _speaking.Add(character);
            }
        }

        private static TaskCompletionSource<NpcClient> NewReady() => new TaskCompletionSource<NpcClient>();

        [RuntimeInitializeOnLoadMethod(RuntimeInitializeLoadType.SubsystemRegistration)]
        private static void Forget() => Current = null; // with domain reload off, statics outlive the play mode

        private void Awake()
        {
            if (Current != null && Current != this)
            {
                Debug.LogWarning("npc-runtime: a second NpcRuntimeHost is removed; one serves all scenes", this);
                Destroy(this);
                return;
            }
            Current = this;
            if (transform.parent == null)
            {
                DontDestroyOnLoad(gameObject);
            }
        }

        private void OnEnable()
        {
            if (Current == null)
            {
                Current = this; // a domain reload in play mode forgets statics and does not call Awake
            }
            if (Current == this)
            {
                Begin();
            }
        }

        private void Update()
        {
            TellAll();
            if (_stale.Count > 0 && !_holding && Stage == HostStage.Ready)
            {
                Hold();
            }
        }

        private void OnDisable() => Stop(); // also before a domain reload in play mode

        private void OnApplicationQuit() => Stop();

        private void OnDestroy()
        {
            if (Current == this)
            {
                Current = null;
            }
        }

        private void TellAll()
        {
            for (int i = _speaking.Count - 1; i >= 0 && i < _speaking.Count; i--)
            {
                if (!_speaking[i].Tell())
                {
                    _speaking.RemoveAt(i);
                }
            }
        }

        private async void Hold()
        {
            using HashSet<string>.Enumerator stale = _stale.GetEnumerator();
            stale.MoveNext();
            string npc = stale.Current;
            _stale.Remove(npc);
            _holding = true;
            try
            {
                await Cast.HoldAsync(_client!, npc);
            }
            catch (NpcException error)
            {
                if (error.Retry && Cast.Has(npc))
                {
                    _stale.Add(npc);
                }
            }
            catch (ObjectDisposedException)
            {
                // stopped meanwhile
            }
            _holding = false;
        }

        /// <summary>A life from start to stop: every way out of it is seen here.</summary>
        private async Task Live(CancellationToken life)
        {
            try
            {
                NpcClient client = await Open(life);
                if (life.IsCancellationRequested)
                {
                    client.Dispose();
                    return;
                }
                _client = client;
                await Revive(client, life); // after Stop and Begin
                while (!life.IsCancellationRequested)
                {
                    Arrive(client);
                    NpcException lost = await client.WhenLost;
                    life.ThrowIfCancellationRequested();
                    await Recover(client, lost, life);
                }
            }
            catch (OperationCanceledException) when (life.IsCancellationRequested)
            {
                // stopped
            }
            catch (ObjectDisposedException) when (life.IsCancellationRequested)
            {
                // stopped while a connection was being brought back
            }
            catch (NpcException error)
            {
                if (!life.IsCancellationRequested)
                {
                    GiveUp(error);
                }
            }
        }

        private Task<NpcClient> Open(CancellationToken life)
        {
            if (endpoint.Length > 0)
            {
                return NpcClient.ConnectAsync(endpoint, key, session, null, life);
            }
            var daemon = new DaemonOptions { Command = Found(command), Bundle = bundle.Length > 0 ? bundle : null, Options = options };
            return NpcClient.StartAsync(daemon, session, life);
        }

        /// <summary>A relative path with a slash is one of StreamingAssets, where a game ships its daemon.</summary>
        private static string[] Found(string[] command)
        {
            var found = (string[])command.Clone();
            if (found.Length > 0 && found[0].IndexOf('/') > 0 && !System.IO.Path.IsPathRooted(found[0]))
            {
                found[0] = System.IO.Path.Combine(Application.streamingAssetsPath, found[0]);
            }
            return found;
        }

        private void Arrive(NpcClient client)
        {
            Stage = HostStage.Ready;
            Trouble = null;
            _ready.TrySetResult(client);
            onConnected.Invoke();
            Connected?.Invoke();
        }

        private async Task Recover(NpcClient client, NpcException lost, CancellationToken life)
        {
            Stage = HostStage.Recovering;
            _ready = NewReady();
            Tell(lost);
            int backoff = FirstBackoffMs;
            for (int attempt = 1; ; attempt++)
            {
                await Task.Delay(backoff, life);
                backoff = Math.Min(2 * backoff, MostBackoffMs);
                try
                {
                    await Return(client, life);
                    return;
                }
                catch (NpcException error) when (attempt < maxAttempts && (error.Retry || error.Kind == NpcErrorCode.DaemonFailed))
                {
                    Trouble = error;
                }
            }
        }

        private async Task Return(NpcClient client, CancellationToken life)
        {
            if (client.Daemon == null ? endpoint.Length > 0 : !client.Daemon.HasExited)
            {
                await client.ReconnectAsync(life);
            }
            else
            {
                await client.RestartAsync(life);
            }
            await Revive(client, life);
        }

        private async Task Revive(NpcClient client, CancellationToken life)
        {
            if (!client.Hello.Resumed && Cast.Ids.Count > 0)
            {
                Recovered?.Invoke(await Cast.ReviveAsync(client, life));
            }
        }

        private void GiveUp(NpcException error)
        {
            Stage = HostStage.Failed;
            _ready.TrySetException(error);
            _ = _ready.Task.Exception; // whoever awaits sees it; nobody need
            NpcClient? client = _client;
            _client = null;
            client?.Dispose();
            Tell(error);
        }

        private void Tell(NpcException error)
        {
            Trouble = error;
            Debug.LogWarning("npc-runtime: " + error.Told, this);
            onFailed.Invoke(error.Told);
            Failed?.Invoke(error);
        }
    }
}

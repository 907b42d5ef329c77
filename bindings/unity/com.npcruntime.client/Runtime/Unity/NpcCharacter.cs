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
    /// A character that talks and remembers. Its events are raised on the main thread, in the order mood, action, deltas,
    /// finished, and before the Task of the verb ends.
    /// </summary>
    [AddComponentMenu("NPC Runtime/Npc Character")]
    public sealed class NpcCharacter : MonoBehaviour
    {
        [SerializeField, Tooltip("Who it is.")]
        private NpcPersona? persona = null;

        [SerializeField, Tooltip("Instead: the name of a persona that the daemon finds, such as marta, or the path of a TOML file.")]
        private string personaName = "";

        [SerializeField, Tooltip("Name under which it is remembered, also in saves; must be unique. Empty: the GameObject's name.")]
        private string npcId = "";

        [SerializeField, Tooltip("Spawn in Start. Off: at the first line, or by SpawnAsync.")]
        private bool spawnOnStart = true;

        [SerializeField, Tooltip("Makes its replies repeatable; -1 draws a seed.")]
        private long seed = -1;

        [SerializeField, Tooltip("Tokens a second at which speech is let out; -1 as the daemon does, 0 as fast as it is made.")]
        private float pace = -1;

        [SerializeField, Tooltip("Speak one of the persona's fallback lines when no reply can be had.")]
        private bool speakFallbacks = true;

        [SerializeField, Tooltip("Forget it in the daemon when this component is destroyed. Off: it remembers when the scene comes again.")]
        private bool forgetWhenDestroyed = false;

        [SerializeField]
        private UnityEvent<string> onSpawned = new UnityEvent<string>();

        [SerializeField]
        private UnityEvent onReplyStarted = new UnityEvent();

        [SerializeField]
        private UnityEvent<string> onMood = new UnityEvent<string>();

        [SerializeField]
        private UnityEvent<string> onAction = new UnityEvent<string>();

        [SerializeField]
        private UnityEvent<string> onDelta = new UnityEvent<string>();

        [SerializeField]
        private UnityEvent<string> onFinished = new UnityEvent<string>();

        [SerializeField]
        private UnityEvent<string> onFailed = new UnityEvent<string>();

        private readonly Queue<Speech> _speeches = new Queue<Speech>();
        private Task? _spawning;
        private int _fallback;

        /// <summary>It lives; null when it lived already.</summary>
        public event Action<Spawned?>? Spawned;

        /// <summary>A Reply begins: clear the speech bubble.</summary>
        public event Action? ReplyStarted;

        /// <summary>The mood of the Reply that begins.</summary>
        public event Action<string>? MoodChanged;

        /// <summary>The Reply asks for something to happen: open the shop, hand something over, follow.</summary>
        public event Action<string>? ActionRequested;

        /// <summary>A piece of speech, as it is made.</summary>
        public event Action<string>? Delta;

        /// <summary>The whole Reply.</summary>
        public event Action<Reply>? Finished;

        /// <summary>Something went wrong.</summary>
        public event Action<NpcException>? Failed;

        /// <summary>The id under which it lives; set it before it is spawned.</summary>
        public string Id
        {
            get => npcId.Length > 0 ? npcId : name;
            set => npcId = value;
        }

        /// <summary>Mood of the last Reply.</summary>
        public string Mood { get; private set; } = "neutral";

        /// <summary>Whether a Reply is under way.</summary>
        public bool IsSpeaking => _speeches.Count > 0;

        /// <summary>Whether it lives in the daemon.</summary>
        public bool IsAlive => NpcRuntimeHost.Current != null && NpcRuntimeHost.Current.Cast.Has(Id);

        /// <summary>Who it is; set it before it is spawned.</summary>
        public NpcPersona? Persona
        {
            get => persona;
            set => persona = value;
        }

        /// <summary>Instead of <see cref="Persona"/>: a name that the daemon finds, or the path of a TOML file.</summary>
        public string PersonaName
        {
            get => personaName;
            set => personaName = value;
        }

        /// <summary>Brings it to life; one that lives already under its id is taken up again with all that it remembers.</summary>
        /// <exception cref="NpcException">NoRuntime, UnknownPersona, BadPersona and others; also told by <see cref="Failed"/>.</exception>
        public Task SpawnAsync(CancellationToken cancellation = default) => Told(async () => { await Living(cancellation); return true; });

        /// <summary>Says a line to it; for UnityEvents, such as that of an input field. What comes of it the events tell.</summary>
        public void Say(string text) => Forget(SayAsync(text));

        /// <summary>Says a line to it and waits for the whole Reply, while the events tell it piece by piece.</summary>
        /// <param name="text">The line.</param>
        /// <param name="options">What this Reply may be.</param>
        /// <param name="cancellation">Cuts it short at what the events have told.</param>
        /// <exception cref="NpcException">Also told by <see cref="Failed"/>.</exception>
        public Task<Reply> SayAsync(string text, SayOptions? options = null, CancellationToken cancellation = default) => Told(async () =>
        {
            NpcClient client = await Living(cancellation);
            var speech = new Speech(client.Stream(Id, text, Paced(options), cancellation));
            _speeches.Enqueue(speech);
            Host().Listen(this);
            return await speech.Told.Task;
        });

        /// <summary>Lets it react to an event as it would to a line.</summary>
        /// <exception cref="NpcException">Also told by <see cref="Failed"/>.</exception>
        public Task<Reply> ReactAsync(string text, CancellationToken cancellation = default) =>
            SayAsync(text, new SayOptions { Kind = "event" }, cancellation);

        /// <summary>Lets it perceive an event without answering.</summary>
        /// <exception cref="NpcException">Also told by <see cref="Failed"/>.</exception>
        public Task<Observed> ObserveAsync(string text, CancellationToken cancellation = default) =>
            Changing(client => client.ObserveAsync(Id, text, "background", cancellation), cancellation);

        /// <summary>Lets it answer with the one of the given lines that suits it best, and remember that as said.</summary>
        /// <exception cref="NpcException">Also told by <see cref="Failed"/>.</exception>
        public Task<Chosen> ChooseAsync(IReadOnlyList<string> lines, string text = "", CancellationToken cancellation = default) =>
            Changing(client => client.ChooseAsync(Id, lines, text, null, "player", cancellation), cancellation);

        /// <summary>Cuts what it is saying; it remembers its line up to what the events have told.</summary>
        public void Cancel()
        {
            if (_speeches.Count > 0)
            {
                _speeches.Peek().Stream.Cancel();
            }
        }

        /// <summary>Takes back its last Turns.</summary>
        /// <exception cref="NpcException">Also told by <see cref="Failed"/>.</exception>
        public Task<NpcInfo> RewindAsync(int turns = 1, CancellationToken cancellation = default) =>
            Changing(client => client.RewindAsync(Id, turns, cancellation), cancellation);

        /// <summary>Its mind as bytes.</summary>
        /// <exception cref="NpcException">Also told by <see cref="Failed"/>.</exception>
        public Task<byte[]> SnapshotAsync(CancellationToken cancellation = default) =>
            Told(async () => await (await Living(cancellation)).SnapshotAsync(Id, cancellation));

        /// <summary>Gives it the mind of a snapshot; it need not have been spawned.</summary>
        /// <exception cref="NpcException">Also told by <see cref="Failed"/>.</exception>
        public Task<NpcInfo> RestoreAsync(byte[] data, bool rebuild = false, CancellationToken cancellation = default) => Told(async () =>
        {
            NpcInfo info = await (await Host().ReadyAsync()).RestoreAsync(Id, data, true, rebuild, cancellation);
            Host().Cast.Restored(Id, data);
            return info;
        });

        /// <summary>A second Npc with the same memories under another id: that of a character that is to take them over.</summary>
        /// <exception cref="NpcException">Also told by <see cref="Failed"/>.</exception>
        public Task<NpcInfo> ForkAsync(string to, CancellationToken cancellation = default) => Told(async () =>
        {
            NpcClient client = await Living(cancellation);
            NpcInfo info = await client.ForkAsync(Id, to, false, cancellation);
            await Host().Cast.HoldAsync(client, to, cancellation);
            return info;
        });

        /// <summary>Forgets it.</summary>
        /// <exception cref="NpcException">Also told by <see cref="Failed"/>.</exception>
        public Task DropAsync(CancellationToken cancellation = default) => Told(async () =>
        {
            await (await Host().ReadyAsync()).DropAsync(Id, cancellation);
            Host().Cast.Dropped(Id);
            return true;
        });

        /// <summary>Raises events for what has come; false when nothing more will. Called in every frame by the host.</summary>
        internal bool Tell()
        {
            while (_speeches.Count > 0)
            {
                Speech speech = _speeches.Peek();
                bool ended = speech.Stream.Reply.IsCompleted; // asked before the last Pieces are read
                while (speech.Stream.TryRead(out Piece piece))
                {
                    Tell(speech, piece);
                }
                if (!ended)
                {
                    return true;
                }
                _speeches.Dequeue();
                End(speech);
            }
            return false;
        }

        private static NpcRuntimeHost Host()
        {
            NpcRuntimeHost? host = NpcRuntimeHost.Current;
            return host != null ? host : throw new NpcException(
                NpcErrorCode.NoRuntime, "the scene has no NpcRuntimeHost", "Add one to a GameObject of the first scene");
        }

        private static async void Forget(Task task)
        {
            try
            {
                await task;
            }
            catch (Exception error) when (error is NpcException || error is OperationCanceledException || error is ObjectDisposedException)
            {
                // the events have told
            }
        }

        private void Start()
        {
            if (spawnOnStart)
            {
                Forget(SpawnAsync());
            }
        }

        private void OnDestroy()
        {
            while (_speeches.Count > 0)
            {
                Speech speech = _speeches.Dequeue();
                speech.Stream.Cancel();
                speech.Told.TrySetCanceled();
            }
            NpcRuntimeHost? host = NpcRuntimeHost.Current;
            if (forgetWhenDestroyed && host != null && host.Client != null && host.Cast.Has(Id))
            {
                host.Cast.Dropped(Id);
                Forget(host.Client.DropAsync(Id));
            }
        }

        /// <summary>Does something that ends with an error told by the event as well as by the Task.</summary>
        private async Task<T> Told<T>(Func<Task<T>> verb)
        {
            try
            {
                return await verb();
            }
            catch (NpcException error)
            {
                onFailed.Invoke(error.Told);
                Failed?.Invoke(error);
                throw;
            }
        }

        private Task<T> Changing<T>(Func<NpcClient, Task<T>> verb, CancellationToken cancellation) => Told(async () =>
        {
            T result = await verb(await Living(cancellation));
            Host().Touch(Id);
            return result;
        });

        private async Task<NpcClient> Living(CancellationToken cancellation)
        {
            NpcClient client = await Host().ReadyAsync();
            cancellation.ThrowIfCancellationRequested();
            if (!Host().Cast.Has(Id))
            {
                if (_spawning == null || _spawning.IsCompleted)
                {
                    _spawning = Spawn(client);
                }
                await _spawning;
            }
            return client;
        }

        private async Task Spawn(NpcClient client)
        {
            Spawned? spawned = null;
            object who = persona != null ? (object)persona.ToTable() : personaName.Length > 0 ? personaName : throw new NpcException(
                NpcErrorCode.BadInput, $"`{Id}` has no persona", "Give the NpcCharacter a persona, or the name of one");
            try
            {
                spawned = who is string named
                    ? await client.SpawnAsync(Id, named, seed < 0 ? (long?)null : seed)
                    : await client.SpawnAsync(Id, (IReadOnlyDictionary<string, object?>)who, seed < 0 ? (long?)null : seed);
                Note(spawned, who);
            }
            catch (NpcException error) when (error.Kind == NpcErrorCode.NpcExists)
            {
                await Host().Cast.HoldAsync(client, Id); // kept by the daemon while we were away
            }
            onSpawned.Invoke(spawned?.Opening?.Text ?? "");
            Spawned?.Invoke(spawned);
        }

        private static void Note(Spawned spawned, object who)
        {
            if (who is string named)
            {
                Host().Cast.Spawned(spawned, named);
            }
            else
            {
                Host().Cast.Spawned(spawned, (IReadOnlyDictionary<string, object?>)who);
            }
        }

        private SayOptions Paced(SayOptions? options)
        {
            options ??= new SayOptions();
            if (options.Pace == null && pace >= 0)
            {
                options.Pace = pace;
            }
            return options;
        }

        private void Tell(Speech speech, Piece piece)
        {
            if (!speech.Begun)
            {
                speech.Begun = true;
                onReplyStarted.Invoke();
                ReplyStarted?.Invoke();
            }
            if (piece.Mood != null)
            {
                Mood = piece.Mood;
                onMood.Invoke(piece.Mood);
                MoodChanged?.Invoke(piece.Mood);
            }
            if (piece.Action != null)
            {
                onAction.Invoke(piece.Action);
                ActionRequested?.Invoke(piece.Action);
            }
            if (piece.Text.Length > 0)
            {
                onDelta.Invoke(piece.Text);
                Delta?.Invoke(piece.Text);
            }
        }

        private void End(Speech speech)
        {
            Task<Reply> whole = speech.Stream.Reply;
            if (whole.IsFaulted)
            {
                SpeakFallback();
                speech.Told.TrySetException(whole.Exception!.InnerExceptions);
                return;
            }
            Reply reply = whole.Result;
            Host().Touch(Id);
            onFinished.Invoke(reply.Text);
            Finished?.Invoke(reply);
            speech.Told.TrySetResult(reply);
        }

        /// <summary>The UnityEvents tell a line of the persona in place of the Reply; the Task fails all the same.</summary>
        private void SpeakFallback()
        {
            if (speakFallbacks && persona != null && persona.fallbacks.Length > 0)
            {
                string line = persona.fallbacks[_fallback++ % persona.fallbacks.Length];
                onDelta.Invoke(line);
                onFinished.Invoke(line);
            }
        }

        /// <summary>A Reply that is being told.</summary>
        private sealed class Speech
        {
            internal Speech(ReplyStream stream) => Stream = stream;

            internal ReplyStream Stream { get; }

            internal TaskCompletionSource<Reply> Told { get; } = new TaskCompletionSource<Reply>();

            internal bool Begun { get; set; }
        }
    }
}

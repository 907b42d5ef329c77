#nullable enable
using System.Collections.Generic;
using System.Threading.Tasks;
using UnityEngine;

namespace NpcRuntime.Samples
{
    /// <summary>Two characters in one room: what is said to one, the other overhears. Add it to an empty GameObject and press Play.</summary>
    public sealed class Tavern : MonoBehaviour
    {
        private static readonly string[] Names = { "marta", "bram" };

        private readonly Dictionary<string, NpcCharacter> _characters = new Dictionary<string, NpcCharacter>();
        private readonly Queue<string> _lines = new Queue<string>();
        private string _typed = "Good evening.";
        private byte[]? _save;

        /// <summary>What stands on the screen, oldest first.</summary>
        public IEnumerable<string> Lines => _lines;

        /// <summary>What the player is about to say.</summary>
        public string Typed
        {
            get => _typed;
            set => _typed = value;
        }

        private void Awake()
        {
            if (NpcRuntimeHost.Current == null)
            {
                new GameObject("NPC Runtime").AddComponent<NpcRuntimeHost>();
            }
            foreach (string persona in Names)
            {
                _characters[persona] = Seat(persona);
            }
        }

        private void OnGUI()
        {
            foreach (string line in _lines)
            {
                GUILayout.Label(line);
            }
            _typed = GUILayout.TextField(_typed);
            foreach (string persona in Names)
            {
                if (GUILayout.Button($"Say to {persona}"))
                {
                    Talk(persona, _typed);
                }
            }
            if (GUILayout.Button("Interrupt"))
            {
                Interrupt();
            }
            if (GUILayout.Button("Save"))
            {
                Keep();
            }
            if (_save != null && GUILayout.Button("Load"))
            {
                GoBack(_save);
            }
        }

        private NpcCharacter Seat(string persona)
        {
            NpcCharacter character = new GameObject(persona).AddComponent<NpcCharacter>();
            character.PersonaName = persona;
            character.Spawned += spawned => Show($"{persona}: {spawned?.Opening?.Text ?? "(remembers you)"}");
            character.Failed += error => Show($"({error.Told})");
            return character;
        }

        private async void Talk(string persona, string text)
        {
            Show($"> {text}");
            try
            {
                Reply reply = await _characters[persona].SayAsync(text);
                Show($"{persona} ({reply.Mood}{(reply.Action == null ? "" : ", " + reply.Action)}): {reply.Text}");
                await Overhear(persona, $"{persona} says to the guest: {reply.Text}");
            }
            catch (NpcException)
            {
                // shown by Failed
            }
        }

        private async Task Overhear(string speaker, string text)
        {
            foreach (string persona in Names)
            {
                if (persona != speaker)
                {
                    await _characters[persona].ObserveAsync(text);
                }
            }
        }

        private void Interrupt()
        {
            foreach (NpcCharacter character in _characters.Values)
            {
                character.Cancel();
            }
        }

        private async void Keep()
        {
            try
            {
                _save = await NpcRuntimeHost.Current!.SaveAsync();
                Show($"(saved: {_save.Length} bytes)");
            }
            catch (NpcException error)
            {
                Show($"({error.Told})");
            }
        }

        private async void GoBack(byte[] save)
        {
            try
            {
                await NpcRuntimeHost.Current!.LoadAsync(save);
                Show("(loaded)");
            }
            catch (NpcException error)
            {
                Show($"({error.Told})");
            }
        }

        private void Show(string line)
        {
            _lines.Enqueue(line);
            if (_lines.Count > 16)
            {
                _lines.Dequeue();
            }
        }
    }
}

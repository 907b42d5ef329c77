#nullable enable
using UnityEditor;
using UnityEngine;

namespace NpcRuntime.Editor
{
    /// <summary>The fields of a character; in play mode a line to try it with.</summary>
    [CustomEditor(typeof(NpcCharacter))]
    public sealed class NpcCharacterEditor : UnityEditor.Editor
    {
        private string _line = "Good evening.";

        /// <summary>Draws the inspector.</summary>
        public override void OnInspectorGUI()
        {
            var character = (NpcCharacter)target;
            DrawDefaultInspector();
            if (character.Persona == null && serializedObject.FindProperty("personaName").stringValue.Length == 0)
            {
                EditorGUILayout.HelpBox("Give this character a persona, or the name of one.", MessageType.Warning);
            }
            if (Application.isPlaying)
            {
                Try(character);
            }
        }

        private void Try(NpcCharacter character)
        {
            EditorGUILayout.LabelField("Alive", character.IsAlive ? $"as {character.Id}, {character.Mood}" : "no");
            _line = EditorGUILayout.TextField("Line", _line);
            if (GUILayout.Button("Say"))
            {
                character.Say(_line);
            }
            if (GUILayout.Button("Cancel"))
            {
                character.Cancel();
            }
        }
    }
}

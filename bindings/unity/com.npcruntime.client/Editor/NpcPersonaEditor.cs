#nullable enable
using System.IO;
using UnityEditor;
using UnityEngine;

namespace NpcRuntime.Editor
{
    /// <summary>The fields of a persona, what is wrong with them, and a button that reads a TOML file.</summary>
    [CustomEditor(typeof(NpcPersona))]
    public sealed class NpcPersonaEditor : UnityEditor.Editor
    {
        /// <summary>Draws the inspector.</summary>
        public override void OnInspectorGUI()
        {
            var persona = (NpcPersona)target;
            foreach (string problem in persona.Problems())
            {
                EditorGUILayout.HelpBox(problem, MessageType.Warning);
            }
            if (GUILayout.Button("Import TOML…"))
            {
                Import(persona, EditorUtility.OpenFilePanel("Persona file", "", "toml"));
            }
            DrawDefaultInspector();
        }

        /// <summary>Reads a file into a persona, so that it can be undone; says in a dialog what is wrong with it.</summary>
        internal static bool Import(NpcPersona persona, string path)
        {
            if (string.IsNullOrEmpty(path))
            {
                return false;
            }
            try
            {
                Undo.RecordObject(persona, "Import TOML");
                persona.ImportToml(File.ReadAllText(path));
                EditorUtility.SetDirty(persona);
                return true;
            }
            catch (System.Exception error) when (error is NpcException || error is IOException)
            {
                EditorUtility.DisplayDialog("The persona was not imported", $"{path}\n\n{error.Message}", "OK");
                return false;
            }
        }

        [MenuItem("Assets/Create/NPC Runtime/Persona from TOML…")]
        private static void CreateFromToml()
        {
            string path = EditorUtility.OpenFilePanel("Persona file", "", "toml");
            var persona = ScriptableObject.CreateInstance<NpcPersona>();
            if (Import(persona, path))
            {
                ProjectWindowUtil.CreateAsset(persona, Path.GetFileNameWithoutExtension(path) + ".asset");
            }
        }
    }
}

#nullable enable
using UnityEditor;
using UnityEngine;

namespace NpcRuntime.Editor
{
    /// <summary>The fields of the host; in play mode how things stand.</summary>
    [CustomEditor(typeof(NpcRuntimeHost))]
    public sealed class NpcRuntimeHostEditor : UnityEditor.Editor
    {
        /// <summary>Draws the inspector.</summary>
        public override void OnInspectorGUI()
        {
            var host = (NpcRuntimeHost)target;
            DrawDefaultInspector();
            if (!Application.isPlaying)
            {
                return;
            }
            EditorGUILayout.LabelField("Stage", host.Stage.ToString());
            if (host.Client != null)
            {
                EditorGUILayout.LabelField("Daemon", $"{host.Client.Hello.Version}, {host.Client.Hello.BundleName}, {host.Client.Hello.Backend}");
            }
            if (host.Trouble != null)
            {
                EditorGUILayout.HelpBox(host.Trouble.Told, MessageType.Error);
            }
        }
    }
}

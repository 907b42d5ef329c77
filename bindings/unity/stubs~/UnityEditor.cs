#nullable enable
#pragma warning disable CS1591, CS0067
// Stand-ins for the few types of UnityEditor that the package uses.
using System;
using System.Collections.Generic;
using UnityEngine;
using Object = UnityEngine.Object;

namespace UnityEditor
{
    public class Editor : ScriptableObject
    {
        public Object target { get; set; } = null!;

        public SerializedObject serializedObject => new SerializedObject(target);

        public virtual void OnInspectorGUI()
        {
        }

        public bool DrawDefaultInspector() => false;
    }

    public sealed class SerializedObject
    {
        private readonly Object _target;

        public SerializedObject(Object target) => _target = target;

        public SerializedProperty FindProperty(string propertyPath) => new SerializedProperty(_target, propertyPath);
    }

    public sealed class SerializedProperty
    {
        internal SerializedProperty(Object target, string path)
        {
            const System.Reflection.BindingFlags Any =
                System.Reflection.BindingFlags.Instance | System.Reflection.BindingFlags.NonPublic | System.Reflection.BindingFlags.Public;
            System.Reflection.FieldInfo field = target.GetType().GetField(path, Any) ?? throw new ArgumentException(path);
            stringValue = field.GetValue(target) as string ?? "";
        }

        public string stringValue { get; }
    }

    [AttributeUsage(AttributeTargets.Class)]
    public sealed class CustomEditor : Attribute
    {
        public CustomEditor(Type inspectedType)
        {
        }
    }

    [AttributeUsage(AttributeTargets.Class)]
    public sealed class InitializeOnLoadAttribute : Attribute
    {
    }

    [AttributeUsage(AttributeTargets.Method)]
    public sealed class MenuItem : Attribute
    {
        public MenuItem(string itemName)
        {
        }
    }

    public enum MessageType
    {
        None,
        Info,
        Warning,
        Error,
    }

    public static class EditorGUILayout
    {
        public static List<string> Shown { get; } = new List<string>();

        public static void HelpBox(string message, MessageType type) => Shown.Add(message);

        public static void LabelField(string label, string label2, params GUILayoutOption[] options) => Shown.Add($"{label}: {label2}");

        public static string TextField(string label, string text, params GUILayoutOption[] options) => text;
    }

    public static class EditorUtility
    {
        public static List<string> Dialogs { get; } = new List<string>();

        public static string NextFile { get; set; } = "";

        public static void SetDirty(Object target)
        {
        }

        public static bool DisplayDialog(string title, string message, string ok)
        {
            Dialogs.Add(message);
            return true;
        }

        public static string OpenFilePanel(string title, string directory, string extension) => NextFile;
    }

    public static class Undo
    {
        public static void RecordObject(Object objectToUndo, string name)
        {
        }
    }

    public static class ProjectWindowUtil
    {
        public static void CreateAsset(Object asset, string pathName)
        {
        }
    }

    public static class AssemblyReloadEvents
    {
        public delegate void AssemblyReloadCallback();

        public static event AssemblyReloadCallback? beforeAssemblyReload;

        public static void Reload() => beforeAssemblyReload?.Invoke();
    }

    public static class EditorApplication
    {
        public static event Action? quitting;
    }
}

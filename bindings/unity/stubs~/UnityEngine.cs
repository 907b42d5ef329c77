#nullable enable
#pragma warning disable CS1591, CS0067, IDE1006
// Stand-ins for the few types of UnityEngine that the package uses, with Unity's signatures; for compiling and testing without Unity.
using System;
using System.Collections.Generic;

namespace UnityEngine
{
    public class Object
    {
        internal bool Destroyed;

        public string name { get; set; } = "";

        public static void Destroy(Object obj) => FakePlayer.Current.Doom(obj);

        public static void DontDestroyOnLoad(Object target)
        {
        }

        // As in Unity, what was destroyed equals null.
        public static bool operator ==(Object? left, Object? right) => ReferenceEquals(left, right) || (Gone(left) && Gone(right));

        public static bool operator !=(Object? left, Object? right) => !(left == right);

        public override bool Equals(object? other) => other is Object thing ? this == thing : other == null && Destroyed;

        public override int GetHashCode() => System.Runtime.CompilerServices.RuntimeHelpers.GetHashCode(this);

        private static bool Gone(Object? thing) => thing is null || thing.Destroyed;
    }

    public class ScriptableObject : Object
    {
        public static T CreateInstance<T>()
            where T : ScriptableObject, new() => new T();
    }

    public class Component : Object
    {
        public GameObject gameObject { get; internal set; } = null!;

        public Transform transform => gameObject.transform;

        public new string name
        {
            get => gameObject.name;
            set => gameObject.name = value;
        }
    }

    public class Behaviour : Component
    {
        private bool _enabled = true;

        public bool enabled
        {
            get => _enabled;
            set
            {
                if (_enabled != value)
                {
                    _enabled = value;
                    FakePlayer.Current.Call((MonoBehaviour)this, value ? "OnEnable" : "OnDisable");
                }
            }
        }
    }

    public class MonoBehaviour : Behaviour
    {
        internal bool Started;
        internal bool Awoken;
    }

    public sealed class Transform : Component
    {
        public Transform? parent { get; set; }
    }

    public sealed class GameObject : Object
    {
        public GameObject(string name)
        {
            this.name = name;
            transform = new Transform { gameObject = this };
        }

        public Transform transform { get; }

        public bool activeSelf { get; private set; } = true;

        public void SetActive(bool value)
        {
            activeSelf = value;
            FakePlayer.Current.Activate(this, value);
        }

        public T AddComponent<T>()
            where T : MonoBehaviour, new()
        {
            var component = new T { gameObject = this };
            FakePlayer.Current.Add(component);
            return component;
        }
    }

    public static class Application
    {
        public static bool isPlaying { get; set; } = true;

        public static string streamingAssetsPath { get; set; } = "/StreamingAssets";
    }

    public static class Debug
    {
        public static List<string> Logged { get; } = new List<string>();

        public static void Log(object message) => Logged.Add("log: " + message);

        public static void LogWarning(object message, Object context) => Logged.Add("warning: " + message);
    }

    public enum RuntimeInitializeLoadType
    {
        SubsystemRegistration,
    }

    [AttributeUsage(AttributeTargets.Method)]
    public sealed class RuntimeInitializeOnLoadMethodAttribute : Attribute
    {
        public RuntimeInitializeOnLoadMethodAttribute(RuntimeInitializeLoadType loadType)
        {
        }
    }

    [AttributeUsage(AttributeTargets.Field)]
    public sealed class SerializeField : Attribute
    {
    }

    [AttributeUsage(AttributeTargets.Field)]
    public sealed class TooltipAttribute : Attribute
    {
        public TooltipAttribute(string tooltip)
        {
        }
    }

    [AttributeUsage(AttributeTargets.Field)]
    public sealed class HeaderAttribute : Attribute
    {
        public HeaderAttribute(string header)
        {
        }
    }

    [AttributeUsage(AttributeTargets.Field)]
    public sealed class TextAreaAttribute : Attribute
    {
    }

    [AttributeUsage(AttributeTargets.Class)]
    public sealed class AddComponentMenu : Attribute
    {
        public AddComponentMenu(string menuName)
        {
        }
    }

    [AttributeUsage(AttributeTargets.Class)]
    public sealed class DisallowMultipleComponent : Attribute
    {
    }

    [AttributeUsage(AttributeTargets.Class)]
    public sealed class DefaultExecutionOrder : Attribute
    {
        public DefaultExecutionOrder(int order)
        {
        }
    }

    [AttributeUsage(AttributeTargets.Class)]
    public sealed class CreateAssetMenuAttribute : Attribute
    {
        public string menuName { get; set; } = "";

        public string fileName { get; set; } = "";
    }

    public static class GUILayout
    {
        public static HashSet<string> Pressed { get; } = new HashSet<string>();

        public static bool Button(string text, params GUILayoutOption[] options) => Pressed.Remove(text);

        public static void Label(string text, params GUILayoutOption[] options)
        {
        }

        public static string TextField(string text, params GUILayoutOption[] options) => text;
    }

    public class GUILayoutOption
    {
    }
}

namespace UnityEngine.Events
{
    public delegate void UnityAction();

    public delegate void UnityAction<T0>(T0 arg0);

    public abstract class UnityEventBase
    {
    }

    public class UnityEvent : UnityEventBase
    {
        private UnityAction? _called;

        public void AddListener(UnityAction call) => _called += call;

        public void Invoke() => _called?.Invoke();
    }

    public class UnityEvent<T0> : UnityEventBase
    {
        private UnityAction<T0>? _called;

        public void AddListener(UnityAction<T0> call) => _called += call;

        public void Invoke(T0 arg0) => _called?.Invoke(arg0);
    }
}

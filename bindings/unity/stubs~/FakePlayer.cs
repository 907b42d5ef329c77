#nullable enable
#pragma warning disable CS1591
using System;
using System.Collections.Concurrent;
using System.Collections.Generic;
using System.Linq;
using System.Reflection;
using System.Threading;

namespace UnityEngine
{
    /// <summary>
    /// A player loop as Unity's: Awake and OnEnable when added, Start before the first Update, what was posted to the main
    /// thread's context once a frame, OnDisable and OnDestroy when destroyed.
    /// </summary>
    public sealed class FakePlayer : SynchronizationContext, IDisposable
    {
        private readonly ConcurrentQueue<(SendOrPostCallback Callback, object? State)> _posted = new ConcurrentQueue<(SendOrPostCallback, object?)>();
        private readonly List<MonoBehaviour> _components = new List<MonoBehaviour>();
        private readonly List<Object> _doomed = new List<Object>();
        private readonly SynchronizationContext? _before = SynchronizationContext.Current;
        private readonly int _thread = Thread.CurrentThread.ManagedThreadId;

        public FakePlayer()
        {
            Current = this;
            SetSynchronizationContext(this);
        }

        public static new FakePlayer Current { get; private set; } = null!;

        public int Frames { get; private set; }

        public override void Post(SendOrPostCallback callback, object? state) => _posted.Enqueue((callback, state));

        public override void Send(SendOrPostCallback callback, object? state) => callback(state);

        public override SynchronizationContext CreateCopy() => this;

        /// <summary>One frame.</summary>
        public void Frame()
        {
            if (Thread.CurrentThread.ManagedThreadId != _thread)
            {
                throw new InvalidOperationException("frames belong to the main thread");
            }
            Frames++;
            Each("Start", component => !component.Started && (component.Started = true));
            Each("Update", component => true);
            Each("OnGUI", component => true);
            for (int left = _posted.Count; left > 0 && _posted.TryDequeue(out var posted); left--)
            {
                posted.Callback(posted.State);
            }
            foreach (Object thing in _doomed.ToArray())
            {
                End(thing);
            }
            _doomed.Clear();
        }

        /// <summary>Frames until something holds; fails after 20 s.</summary>
        public void Until(Func<bool> condition)
        {
            DateTime until = DateTime.UtcNow.AddSeconds(20);
            while (!condition())
            {
                if (DateTime.UtcNow > until)
                {
                    throw new TimeoutException("it did not come to pass; logged: " + string.Join(" | ", Debug.Logged));
                }
                Frame();
                Thread.Sleep(1);
            }
        }

        /// <summary>Ends the game as Unity does.</summary>
        public void Quit()
        {
            Each("OnApplicationQuit", component => true);
            foreach (MonoBehaviour component in _components.ToArray())
            {
                End(component);
            }
        }

        public void Dispose()
        {
            Quit();
            SetSynchronizationContext(_before);
        }

        internal void Add(MonoBehaviour component)
        {
            _components.Add(component);
            if (component.gameObject.activeSelf)
            {
                Wake(component);
            }
        }

        internal void Activate(GameObject thing, bool active)
        {
            foreach (MonoBehaviour component in _components.Where(one => ReferenceEquals(one.gameObject, thing)).ToArray())
            {
                if (active)
                {
                    Wake(component);
                }
                else
                {
                    Call(component, "OnDisable");
                }
            }
        }

        internal void Doom(Object thing) => _doomed.Add(thing);

        internal void Call(MonoBehaviour component, string name)
        {
            MethodInfo? method = component.GetType().GetMethod(name, BindingFlags.Instance | BindingFlags.NonPublic | BindingFlags.Public);
            ((Action?)method?.CreateDelegate(typeof(Action), component))?.Invoke();
        }

        private void Wake(MonoBehaviour component)
        {
            if (!component.Awoken)
            {
                component.Awoken = true;
                Call(component, "Awake");
            }
            if (!_doomed.Contains(component))
            {
                Call(component, "OnEnable");
            }
        }

        private void Each(string name, Func<MonoBehaviour, bool> when)
        {
            foreach (MonoBehaviour component in _components.Where(one => one.enabled && one.gameObject.activeSelf).ToArray())
            {
                if (when(component))
                {
                    Call(component, name);
                }
            }
        }

        private void End(Object thing)
        {
            foreach (MonoBehaviour component in _components.Where(one => ReferenceEquals(one, thing) || ReferenceEquals(one.gameObject, thing)).ToArray())
            {
                _components.Remove(component);
                Call(component, "OnDisable");
                Call(component, "OnDestroy");
                component.Destroyed = true;
            }
            thing.Destroyed = true;
        }
    }
}

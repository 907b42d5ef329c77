#nullable enable
using UnityEditor;

namespace NpcRuntime.Editor
{
    /// <summary>Ends the connection, its thread and our daemon before the editor throws the code away.</summary>
    [InitializeOnLoad]
    internal static class DomainReload
    {
        static DomainReload()
        {
            AssemblyReloadEvents.beforeAssemblyReload += Stop;
            EditorApplication.quitting += Stop;
        }

        private static void Stop()
        {
            if (NpcRuntimeHost.Current != null)
            {
                NpcRuntimeHost.Current.Stop();
            }
        }
    }
}

#nullable enable
using System;
using System.Threading;
using System.Threading.Tasks;
using NUnit.Framework;

namespace NpcRuntime.Tests
{
    /// <summary>Waits for tasks from tests that are not async, as every test runner knows them; with a bound, so that nothing hangs.</summary>
    internal static class Waiting
    {
        private const int Bound = 20_000;

        internal static T Get<T>(this Task<T> task)
        {
            ((Task)task).End();
            return task.Result;
        }

        internal static void End(this Task task)
        {
            Assert.That(Task.WhenAny(task, Task.Delay(Bound)).Result, Is.SameAs(task), "the task did not end");
            task.GetAwaiter().GetResult();
        }

        /// <summary>The error that a task fails with.</summary>
        internal static NpcException Failure(this Task task) => Assert.Throws<NpcException>(() => task.End());

        internal static void Until(Func<bool> condition)
        {
            Assert.That(SpinWait.SpinUntil(condition, Bound), Is.True, "it did not come to pass");
        }
    }
}

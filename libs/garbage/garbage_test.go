package garbage_test

import (
	"runtime/debug"
	"testing"

	"a3os.app/libs/garbage"
)

// percent is what is set, and stays set.
func percent() int {
	is := debug.SetGCPercent(100)
	debug.SetGCPercent(is)
	return is
}

func TestGarbageIsCollectedSeldomUntilAProcessServes(t *testing.T) {
	t.Cleanup(func() { debug.SetGCPercent(100) })
	t.Setenv("GOGC", "")
	garbage.Seldom()
	if is := percent(); is != 400 {
		t.Errorf("a process that starts collects at %d %%", is)
	}
	garbage.AsAlways()
	if is := percent(); is != 100 {
		t.Errorf("a process that serves collects at %d %%", is)
	}
}

func TestOperatorsChoiceStands(t *testing.T) {
	t.Cleanup(func() { debug.SetGCPercent(100) })
	t.Setenv("GOGC", "70")
	debug.SetGCPercent(70)
	garbage.Seldom()
	garbage.AsAlways()
	if is := percent(); is != 70 {
		t.Errorf("the operator chose 70 %% and it is %d", is)
	}
}

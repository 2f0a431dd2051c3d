package supervise

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFullLogIsSetAsideAndTheOldestGoes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	log, err := openLog(path, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"one", "two", "three", "four"} {
		if _, err := log.Write([]byte(strings.Repeat(word, 20))); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{path: "four", path + ".1": "three", path + ".2": "two"} {
		text, err := os.ReadFile(file)
		if err != nil || !strings.HasPrefix(string(text), want) {
			t.Errorf("%s holds %.10q (%v), want %q", file, text, err, want)
		}
	}
	if _, err := os.Stat(path + ".3"); err == nil {
		t.Error("the oldest is still there")
	}
}

// Go itself says how it dies: of a panic, of a signal, of a fault of its runtime.
func TestLastWordsOfAProcessSayWhyItEnded(t *testing.T) {
	for _, c := range []struct{ code, want string }{
		{`println("{\"level\":\"ERROR\",\"error\":\"no way\"}"); os.Exit(1)`, `{"level":"ERROR","error":"no way"}`},
		{`println("{}"); panic("no tea")`, "panic: no tea"},
		{`println("panic: of before"); println("{}"); _ = syscall.Kill(os.Getpid(), syscall.SIGQUIT); select {}`, "SIGQUIT: quit"},
		{`var m sync.Mutex; m.Lock(); m.Lock()`, "fatal error: all goroutines are asleep - deadlock!"},
		{`debug.SetMaxStack(1 << 16); var f func() int; f = func() int { return f() + 1 }; println(f())`, "runtime: goroutine stack exceeds 65536-byte limit"},
		{`debug.SetMaxThreads(1)`, "runtime: program exceeds 1-thread limit; fatal error: thread exhaustion"},
	} {
		dir := t.TempDir()
		path, program := filepath.Join(dir, "x.log"), filepath.Join(dir, "main.go")
		if err := os.WriteFile(program, []byte("package main\n\nimport (\n\"os\"\n\"runtime/debug\"\n\"sync\"\n\"syscall\"\n)\n\nvar _, _, _, _ = os.Exit, debug.Stack, sync.OnceFunc, syscall.Kill\n\nfunc main() {\n"+c.code+"\n}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		built := filepath.Join(dir, "program")
		if said, err := exec.CommandContext(t.Context(), "go", "build", "-o", built, program).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, said)
		}
		said, err := exec.CommandContext(t.Context(), built).CombinedOutput()
		if err == nil {
			t.Fatalf("%s ends well", c.code)
		}
		if err := os.WriteFile(path, said, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := lastWords(path); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: the last words are %q, want %q", c.code, got, c.want)
		}
	}
	if got := lastWords(filepath.Join(t.TempDir(), "none")); got != "(unreadable)" {
		t.Errorf("of no log the last words are %q", got)
	}
}

func TestBackOffDoublesFromNothingToHalfAMinute(t *testing.T) {
	for failures, want := range map[int]time.Duration{0: 0, 1: 100 * time.Millisecond, 2: 200 * time.Millisecond, 5: 1600 * time.Millisecond, 10: 30 * time.Second, 1000: 30 * time.Second} {
		if got := backOff(failures); got != want {
			t.Errorf("after %d ends the pause is %s, want %s", failures, got, want)
		}
	}
}

package main

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestMain is the program itself where a test starts it: what it does of its own process is not to be done to the tests'.
func TestMain(m *testing.M) {
	if args, ok := os.LookupEnv("TEST_ACCESSOS"); ok {
		os.Exit(run(context.Background(), strings.Fields(args), os.Environ()))
	}
	os.Exit(m.Run())
}

func accessos(t *testing.T, args string, environ ...string) (said string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "TEST_ACCESSOS=" + args}, environ...)
	out, _ := cmd.CombinedOutput()
	return string(out), cmd.ProcessState.ExitCode()
}

func TestWhoSaysNothingToRunReadsAllThatThereIs(t *testing.T) {
	for _, args := range []string{"", "nonsense"} {
		said, code := accessos(t, args)
		for name := range roles {
			if !strings.Contains(said, name) {
				t.Errorf("accessos %s: role %s is not named: %s", args, name, said)
			}
		}
		for name, c := range commands {
			if !strings.Contains(said, "accessos "+name) || c.reason == "" || !strings.Contains(said, c.reason) {
				t.Errorf("accessos %s: %s or its reason is not named: %s", args, name, said)
			}
		}
		if code != exitUsage {
			t.Errorf("accessos %s ends with %d", args, code)
		}
	}
}

func TestEachCommandSaysHowItIsCalled(t *testing.T) {
	for args, says := range map[string]string{"ready": "accessos ready URL", "keep-socket x": "accessos keep-socket HOST:PORT PATH UID", "place-files x": "accessos place-files",
		"ask-doors x": "accessos ask-doors", "iam x": "accessos iam"} {
		if said, code := accessos(t, args); code != exitUsage || !strings.Contains(said, "it is called as: "+says+"\n") {
			t.Errorf("accessos %s ends with %d: %s", args, code, said)
		}
	}
}

// What is run beside a role is in the same environment, where a long-lived key is for anybody to find.
func TestNothingRunsBesideALongLivedKey(t *testing.T) {
	const id = "AKIAIOSFODNN7EXAMPLE" // of AWS's documentation
	for _, args := range []string{"iam", "ask-doors", "keep-socket 127.0.0.1:0 /nowhere/x 0", "place-files", "ready http://127.0.0.1:1/"} {
		said, code := accessos(t, args, "AWS_ACCESS_KEY_ID="+id)
		if code != exitUsage || !strings.Contains(said, "AWS_ACCESS_KEY_ID") || strings.Contains(said, id) {
			t.Errorf("accessos %s ends with %d: %s", args, code, said)
		}
	}
}

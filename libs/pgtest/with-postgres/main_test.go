package main

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"a3os.app/libs/pgtest"
)

// envPlay makes the test binary play with-postgres itself.
const envPlay = "A3_TEST_PLAY_WITH_POSTGRES"

func TestMain(m *testing.M) {
	if os.Getenv(envPlay) != "" {
		main()
	}
	os.Exit(m.Run())
}

func TestCommandHasAServerAndItsExitCodeIsPassedOn(t *testing.T) {
	t.Parallel()
	cmd := withPostgres("", "sh", "-c", `echo "$A3_TEST_PG"; exit 3`)
	out, _ := cmd.Output() // the exit code is looked at below
	if code := cmd.ProcessState.ExitCode(); code != 3 {
		t.Errorf("exit code %d, want the command's 3", code)
	}
	url := strings.TrimSpace(string(out))
	if !strings.HasPrefix(url, "postgres://") {
		t.Fatalf("the command was given %q for a server", url)
	}
	if conn, err := pgx.Connect(t.Context(), url); err == nil {
		conn.Close(t.Context())
		t.Error("the server is still there when the command has ended")
	}
}

func TestSignalReachesTheCommandAndTheServerOutlivesIt(t *testing.T) {
	t.Parallel()
	cmd := withPostgres("", "sh", "-c", `trap 'kill $waits; exit 7' TERM; sleep 600 & waits=$!; echo "$A3_TEST_PG"; wait`)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	url, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), strings.TrimSpace(url))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close(t.Context())
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the exit code is looked at below
	if code := cmd.ProcessState.ExitCode(); code != 7 {
		t.Errorf("exit code %d, want the 7 of the command's own trap", code)
	}
	if conn, err := pgx.Connect(t.Context(), strings.TrimSpace(url)); err == nil {
		conn.Close(t.Context())
		t.Error("the server is still there when the command has ended")
	}
}

func TestServerThatIsNamedAlreadyIsUsed(t *testing.T) {
	t.Parallel()
	out, err := withPostgres("postgres://somewhere/else", "sh", "-c", `echo "$A3_TEST_PG"`).Output()
	if got := strings.TrimSpace(string(out)); err != nil || got != "postgres://somewhere/else" {
		t.Errorf("the command was given %q (%v)", got, err)
	}
}

func TestMisuseHasExitCodesOfItsOwn(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args []string
		want int
	}{{nil, exitUsage}, {[]string{"/no/such/command"}, exitNoStart}, {[]string{"sh", "-c", "kill -KILL $$"}, exitSignal + 9}} {
		cmd := withPostgres("postgres://somewhere/else", tt.args...)
		_ = cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != tt.want {
			t.Errorf("%v: exit code %d, want %d", tt.args, code, tt.want)
		}
	}
}

func withPostgres(server string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], append([]string{"--"}, args...)...)
	cmd.Env = append(os.Environ(), envPlay+"=1", pgtest.EnvServer+"="+server)
	return cmd
}

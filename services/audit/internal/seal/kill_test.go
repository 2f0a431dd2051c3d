package seal_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"a3os.app/libs/binding"
	"a3os.app/libs/binding/bindingtest"
	"a3os.app/libs/id"
	"a3os.app/libs/pg"
	"a3os.app/libs/tlog"

	"a3os.app/services/audit/internal/audittest"
	"a3os.app/services/audit/internal/seal"
)

// Environment of a process that seals once and kills itself on the way.
const (
	envURL  = "SEAL_DATABASE_URL"
	envKey  = "SEAL_LOG_KEY"
	envStep = "SEAL_KILL_AT"
	envNth  = "SEAL_KILL_NTH"
	// The child opens the database as the test marked it.
	envMarkKeys = "SEAL_KILL_MARK_KEYS"
	envTenant   = "SEAL_KILL_TENANT"
)

// perBatch makes three batches of what a kill test records: one that crosses the end of a tile and is signed, one that isn't signed,
// and the rest.
const perBatch, perKill = 300, 700

func TestMain(m *testing.M) {
	if os.Getenv(envURL) == "" {
		os.Exit(m.Run())
	}
	if err := sealAndDie(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// sealAndDie seals what there is, and kills its own process the nth time it comes by a step.
func sealAndDie(ctx context.Context) error {
	signer, err := tlog.NewSigner(os.Getenv(envKey))
	if err != nil {
		return err
	}
	nth, err := strconv.Atoi(os.Getenv(envNth))
	if err != nil {
		return err
	}
	tenant, err := id.ParseTenant(os.Getenv(envTenant))
	if err != nil {
		return err
	}
	owner, err := binding.NewOwner(os.Getenv(envMarkKeys), bindingtest.Plane, tenant)
	if err != nil {
		return err
	}
	db, err := pg.Open(ctx, pg.Config{URL: os.Getenv(envURL), Service: "audit", Owner: owner})
	if err != nil {
		return err
	}
	s := seal.New(db, signer)
	s.Batches(perBatch)
	s.At(func(at seal.Step) {
		if string(at) != os.Getenv(envStep) {
			return
		}
		if nth--; nth == 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal is on its way
		}
	})
	return s.Round(ctx)
}

// Rows F30, F7 and F8: a sealer killed at any point, before it took anything of the inbox and in the middle of a batch, loses no event,
// doubles none, leaves no gap and forks no history.
func TestSealerKilledAtEveryStepLeavesOneWholeLog(t *testing.T) {
	db := audittest.New(t)
	secret, _, err := tlog.NewKey("a3os.app/dev/killed/audit")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := tlog.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	recorded, remembered := make(map[string]bool), ""
	conn, kills := db.As(t, "role_iam"), 0
	for _, step := range seal.Steps() {
		for nth := 1; nth <= 3; nth++ {
			audittest.Put(t, conn, events(perKill, recorded)...)
			killed := runAndDie(t, db.URL["role_audit"], secret, step, nth)
			if killed {
				kills++
			}
			// A checkpoint comes every second and at the end: how often within a round depends on the machine, from twice on.
			if checkpoints := step == seal.StepSigned || step == seal.StepCheckpointed; !killed && (!checkpoints || nth <= 2) {
				t.Errorf("not killed at %s the %d. time", step, nth)
			}
			// What was published before and after the crash is one history, and nothing is lost between inbox and log.
			report, err := tlog.Verify(t.Context(), db.Stored(t), signer.Verifier(), remembered)
			if err != nil {
				t.Fatalf("after a kill at %s: %v", step, err)
			}
			for _, f := range report.Findings {
				t.Errorf("after a kill at %s: %s", step, f.Text)
			}
			remembered = report.Newest.Note
			var n int
			if err := db.Pool(t).QueryRow(t.Context(), "SELECT (SELECT count(*) FROM audit.inbox) + (SELECT count(*) FROM audit.entries)").Scan(&n); err != nil {
				t.Fatal(err)
			}
			if n != len(recorded) {
				t.Errorf("after a kill at %s: %d events are in inbox and log, %d were recorded", step, n, len(recorded))
			}
		}
	}
	if err := seal.New(db.DB(t), signer).Round(t.Context()); err != nil {
		t.Fatal(err)
	}
	db.Whole(t, signer.Verifier(), remembered, recorded)
	t.Attr("row", fmt.Sprintf("F30 %d", kills))
	t.Attr("row", fmt.Sprintf("F7 %d", kills))
	t.Attr("row", fmt.Sprintf("F8 %d", kills))
}

func runAndDie(t *testing.T, url, secret string, step seal.Step, nth int) bool {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), envURL+"="+url, envKey+"="+secret, envStep+"="+string(step), envNth+"="+strconv.Itoa(nth),
		envMarkKeys+"="+bindingtest.Keys(t), envTenant+"="+bindingtest.Somebody(t).Tenant().String())
	out, err := cmd.CombinedOutput()
	if err == nil {
		return false
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signal() == syscall.SIGKILL {
			return true
		}
	}
	t.Fatalf("the sealer ended by itself: %v\n%s", err, out)
	return false
}

// Row F30: a sealer whose connection breaks at any point goes on by itself in the next round.
func TestSealerWhoseConnectionBreaksAtEveryStepGoesOn(t *testing.T) {
	db, signer := audittest.New(t), audittest.Signer(t)
	s := seal.New(db.DB(t), signer)
	s.Batches(perBatch)
	recorded, remembered := make(map[string]bool), ""
	conn, admin := db.As(t, "role_iam"), db.Pool(t)
	for _, step := range seal.Steps() {
		audittest.Put(t, conn, events(perKill, recorded)...)
		broken := false
		s.At(func(at seal.Step) {
			if at != step || broken {
				return
			}
			broken = true
			if _, err := admin.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1 AND application_name = 'audit'",
				db.RoleName(db.URL["role_audit"])); err != nil {
				t.Error(err)
			}
		})
		_ = s.Round(t.Context()) // broken, unless everything was committed by then
		if !broken {
			t.Errorf("the sealer never came by %s", step)
		}
		for try := 0; ; try++ { // a terminated backend may still hold the lock for a moment
			if err := s.Round(t.Context()); err != nil && try == 100 {
				t.Fatal(err)
			}
			var waiting int
			if err := admin.QueryRow(t.Context(), "SELECT count(*) FROM audit.inbox").Scan(&waiting); err != nil {
				t.Fatal(err)
			}
			if waiting == 0 {
				break
			}
		}
		remembered = db.Whole(t, signer.Verifier(), remembered, recorded)
	}
	t.Attr("row", fmt.Sprintf("F30 %d", len(seal.Steps())))
}

package systemtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Everybody looks at the page when nothing works. With the registry gone, or the database that it needs, it says so in every format, names where
// to look, and shows what there is to be seen without it, in bounded time.
func TestPageWithoutTheRegistrySaysSo(t *testing.T) {
	full(t)
	t.Parallel()
	own := planeIn(t, walkable(t), "A3_TENANTS=acme", "A3_UNIX_TENANTS=none", "A3_BACKUP_EVERY=none")
	if err := own.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	x := own.tenants["acme"]
	for what, says := range map[string]string{
		"plane/registry": "at " + own.registryAddress(t),
		"plane/postgres": "plane/postgres",
	} {
		t.Run(what, func(t *testing.T) {
			pid := own.pids(t)[what]
			stopped := []int{pid}
			children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)) // whom a server of PostgreSQL has answer on each connection
			if err != nil {
				t.Fatal(err)
			}
			for _, child := range strings.Fields(string(children)) {
				n, err := strconv.Atoi(child)
				if err != nil {
					t.Fatal(err)
				}
				stopped = append(stopped, n)
			}
			for _, one := range stopped {
				if err := syscall.Kill(one, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) {
					t.Fatal(err)
				}
			}
			defer func() {
				for _, one := range stopped {
					_ = syscall.Kill(one, syscall.SIGCONT)
				}
				within(t, time.Minute, func() error {
					var p page
					return own.json(t.Context(), &p, "status")
				})
			}()
			within(t, 30*time.Second, func() error { // until the supervisor has seen it too
				if s := own.fleet(t, "plane", "status").out; !strings.Contains(s, fmt.Sprintf("kill -9 %d", pid)) {
					return fmt.Errorf("plane status:\n%s", s)
				}
				return nil
			})
			const most = 30 * time.Second
			began := time.Now()
			s := own.fleet(t, "-o", "json", "status")
			var p struct {
				page
				Findings []struct{ Kind, Component, Reason, Next string }
			}
			if err := json.Unmarshal([]byte(s.out), &p); err != nil || s.code != 1 || time.Since(began) > most {
				t.Fatalf("after %s, with %v: %s", time.Since(began), err, s)
			}
			if len(p.Blind) != 1 || !strings.Contains(p.Blind[0], "registry") {
				t.Errorf("not seen: %q", p.Blind)
			}
			if !slices.ContainsFunc(p.Tenants, func(y row) bool { return y.ID == x.id && y.State == "unknown" && y.Components == 5 }) {
				t.Errorf("the tenants are %+v", p.Tenants)
			}
			named, mended := false, false
			for _, f := range p.Findings {
				named = named || f.Kind == "registry_away" && strings.Contains(f.Reason, says) && f.Next == "docs/operations.md#the-registry-is-away"
				mended = mended || f.Kind == "plane_process" && "plane/"+f.Component == what && strings.HasPrefix(f.Next, fmt.Sprintf("kill -9 %d", pid))
			}
			if !named || !mended {
				t.Errorf("of the plane it says %+v, want %s", p.Findings, says)
			}
			for _, args := range [][]string{{"status"}, {"tenant", "show", "acme"}} {
				s := own.fleet(t, args...)
				if s.code != 1 || !strings.Contains(s.String(), says) || !strings.Contains(s.String(), "docs/operations.md#the-registry-is-away") {
					t.Errorf("fleet %v: %s", args, s)
				}
			}
			if s := own.fleet(t, "status"); !strings.Contains(s.out, "the plane itself is in trouble") || !strings.Contains(s.out, "acme") || strings.Contains(s.out, "0 tenants") {
				t.Errorf("the page:\n%s", s.out)
			}
			ctx, cancel := context.WithTimeout(t.Context(), most)
			defer cancel()
			if w, err := own.command(ctx, "fleet", "-o", "json", "status", "--watch"); !strings.Contains(w.out, `"registry_away"`) {
				t.Errorf("watched: %v, %s", err, w)
			}
		})
	}
}

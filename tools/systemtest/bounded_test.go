package systemtest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
)

// tooMuch makes a session hold some 2 GB.
const tooMuch = "SELECT array_agg(repeat('x', 50000000)) FROM generate_series(1, 40)"

// outgrowsItsServer has a session of a tenant's own server want more memory than the tenant's share: the kernel ends that one, the tenant
// is served again, and no neighbour is refused or loses a process meanwhile.
func outgrowsItsServer(t *testing.T, x *tenant, neighbour string) {
	t.Helper()
	before := shared.pids(t)
	killed, bounded := killedForMemory(t, before[x.id+"/postgres"])
	if !bounded {
		t.Log("the supervisor can bound nothing on this machine: no session of a tenant's own server outgrew it")
		return
	}
	conn := shared.superuser(t, "postgres-"+x.id, x.id)
	ctx, stop := context.WithCancel(t.Context())
	asked := 0
	var load sync.WaitGroup
	load.Go(func() {
		for first := true; first || ctx.Err() == nil; first = false {
			if got := shared.hostAnswers(t, neighbour); got != http.StatusOK {
				t.Errorf("while a session of %s outgrew its server, %s answered %d", x.slug, neighbour, got)
				return
			}
			asked++
		}
	})
	_, err := conn.Exec(t.Context(), tooMuch)
	if err == nil || !conn.IsClosed() {
		t.Errorf("a session that wanted twice its tenant's share: %v, and it goes on: %v", err, !conn.IsClosed())
	}
	within(t, backWithin, func() error {
		if got := shared.hostAnswers(t, x.slug); got != http.StatusOK {
			return fmt.Errorf("after it outgrew its server its host answers %d", got)
		}
		return nil
	})
	stop()
	load.Wait()
	after := shared.pids(t)
	if now, _ := killedForMemory(t, after[x.id+"/postgres"]); now <= killed {
		t.Errorf("the kernel had ended %d of its server's processes and has ended %d: something else refused it: %v", killed, now, err)
	}
	for unit, pid := range before {
		if !strings.HasPrefix(unit, x.id+"/") && after[unit] != pid {
			t.Errorf("%s was process %d and is %d", unit, pid, after[unit])
		}
	}
	t.Logf("%s was asked %d times meanwhile", neighbour, asked)
}

var oomKill = regexp.MustCompile(`(?m)^oom_kill (\d+)$`)

// killedForMemory is how many processes of a process's cgroup the kernel ended since they held more than 1 GiB together; false where it is
// in no cgroup of a plane's.
func killedForMemory(t *testing.T, pid int) (n int, bounded bool) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cgroup"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if !strings.Contains(f[2], "/a3-") || f[1] != "memory" && f[1] != "" {
			continue
		}
		dir := filepath.Join("/sys/fs/cgroup", f[1], f[2])
		for limits, events := range map[string]string{"memory.limit_in_bytes": "memory.oom_control", "memory.max": "memory.events"} { // cgroup v1, v2
			limit, err := os.ReadFile(filepath.Join(dir, limits))
			if os.IsNotExist(err) {
				continue
			}
			const share = "1073741824"
			if got := strings.TrimSpace(string(limit)); err != nil || got != share {
				t.Errorf("its server may hold %q octets of memory (%v), want %s", got, err, share)
			}
			said, err := os.ReadFile(filepath.Join(dir, events))
			m := oomKill.FindStringSubmatch(string(said))
			if err != nil || m == nil {
				t.Fatalf("%s says %q (%v)", events, said, err)
			}
			n, err = strconv.Atoi(m[1])
			if err != nil {
				t.Fatal(err)
			}
			return n, true
		}
	}
	return 0, false
}

// crowdsItsServer has as many come to a tenant's own server, who say nothing yet, as its sessions and a few more: who comes after them is served,
// as they would not be by a server that may make no more processes.
func crowdsItsServer(t *testing.T, x *tenant) {
	t.Helper()
	own := shared.superuserURL(t, "postgres-"+x.id, "postgres")
	at, err := url.Parse(own)
	if err != nil {
		t.Fatal(err)
	}
	const silent = 100
	for range silent {
		conn, err := net.Dial("tcp", at.Host) //nolint:noctx // it is this machine
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	const times = 5
	for range times {
		conn, err := pgx.Connect(t.Context(), own)
		if err != nil {
			t.Fatalf("%d came to the server of %s and said nothing; who comes next is told: %v", silent, x.slug, err)
		}
		if err := conn.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

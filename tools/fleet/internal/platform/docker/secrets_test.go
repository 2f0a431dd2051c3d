package docker_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/id"
	"a3os.app/tools/fleet/internal/platform"
	"a3os.app/tools/internal/enginetest"
)

// Whoever breaks into one container fills what that one may write into, and nothing that another one is given or renews.
func TestFullCertificateDirectoryIsItsContainersOwn(t *testing.T) {
	enginetest.Need(t)
	p, r := grounds(t)
	var sets []platform.Set
	for _, slug := range []string{"acme", "globex", "initech"} {
		s := platform.Set{Blueprint: p.Tenants, Tenant: id.NewTenant(), Slug: slug, Tier: registryv1.IsolationTier_ISOLATION_TIER_DATABASE}
		if _, err := p.Identity(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		sets = append(sets, s)
	}
	mine, theirs, late := sets[0], sets[1], sets[2]
	for _, s := range []platform.Set{mine, theirs} {
		if _, err := worksOn(t, p, s, r, platform.StepStart).Start(t.Context(), s, r); err != nil {
			t.Fatal(err)
		}
	}
	// in is a file of the directory that the container renews its certificate in, as the container sees it.
	in := func(s platform.Set, name string) string {
		all, err := p.Status(t.Context(), s.Name())
		if err != nil || len(all) != 1 {
			t.Fatalf("%v, %v", all, err)
		}
		return filepath.Join("/proc", fmt.Sprint(all[0].PID), "root/run/a3/certificate", name)
	}
	if _, err := os.Stat(in(mine, "workload.pem")); err != nil {
		t.Fatalf("the control: it was given its certificate: %v", err)
	}
	file, err := os.Create(in(mine, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	written, chunk := 0, make([]byte, 4<<10)
	const most = 80 << 20 // more than the plane's tmpfs has
	for err == nil && written < most {
		var n int
		n, err = file.Write(chunk)
		written += n
	}
	const room = 1 << 20
	if !errors.Is(err, syscall.ENOSPC) || written > room {
		t.Errorf("it wrote %d octets: %v", written, err)
	}
	for n := range 1000 { // nor does it take files without end
		if err = os.WriteFile(in(mine, fmt.Sprint(n)), nil, 0o600); err != nil {
			break
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("it made a thousand files: %v", err)
	}

	if err := os.WriteFile(in(theirs, "workload.pem.new"), make([]byte, 64<<10), 0o600); err != nil {
		t.Errorf("another tenant's can't renew its certificate: %v", err)
	}
	if err := p.HandOver(t.Context(), theirs); err != nil {
		t.Errorf("another tenant's is handed nothing over: %v", err)
	}
	if _, err := worksOn(t, p, late, r, platform.StepStart).Start(t.Context(), late, r); err != nil {
		t.Errorf("another tenant isn't started: %v", err)
	}
	disks, err := p.Disks()
	full := filepath.Join(p.SecretsDir(), mine.Name(), "web", "certificate")
	for _, dir := range []string{p.SecretsDir(), full} {
		i := slices.IndexFunc(disks, func(d platform.Disk) bool { return d.Path == dir })
		if err != nil || i < 0 || (disks[i].Free == 0) != (dir == full) || disks[i].Full == "" {
			t.Errorf("of %s it says %+v, %v", dir, disks, err)
		}
	}

	// Stopped and started it has room again; nothing stays mounted of what is gone.
	if _, err := worksOn(t, p, mine, r, platform.StepStop).Stop(t.Context(), mine); err != nil {
		t.Fatal(err)
	}
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(mounts), mine.Name()) {
		t.Errorf("of the tenant that is stopped is left: %s, %v", mounts, err)
	}
	if _, err := worksOn(t, p, mine, r, platform.StepStart).Start(t.Context(), mine, r); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(in(mine, "workload.pem")); err != nil {
		t.Errorf("started again it has no certificate: %v", err)
	}
}

package plane

import (
	"strings"
	"testing"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/tools/fleet/internal/backup"
)

// Row F52 of restores: what was planned, and approved, is a backup by its content, and not whatever lies under its name when the plan is carried out,
// also where a restore is gone on with, for which the world is compared no more.
func TestAnotherBackupUnderThePlannedNameIsRefused(t *testing.T) {
	const name = "20260901T030000Z-k3f9q2"
	planned := "sha256:" + strings.Repeat("a", 64)
	by := &restorePlan{&registryv1.StoredPlan{Restore: &registryv1.PlannedRestore{}}, &registryv1.Plan{Tenants: []*registryv1.TenantChange{
		{Restore: &registryv1.RestoreChange{Backup: name, ManifestDigest: planned}}}}}
	for _, c := range []struct {
		what string
		by   *restorePlan
		b    backup.Backup
		well bool
	}{
		{"the very backup", by, backup.Backup{Manifest: &backup.Manifest{Name: name}, Digest: planned}, true},
		{"another content", by, backup.Backup{Manifest: &backup.Manifest{Name: name}, Digest: "sha256:" + strings.Repeat("b", 64)}, false},
		{"another name", by, backup.Backup{Manifest: &backup.Manifest{Name: "20260901T030000Z-zzzzzz"}, Digest: planned}, false},
		{"no plan", nil, backup.Backup{Manifest: &backup.Manifest{Name: name}}, true},
	} {
		if err := c.by.of(&c.b); (err == nil) != c.well {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

func TestEntriesOfACheckpointAreItsSize(t *testing.T) {
	for note, want := range map[string]int64{
		"": 0, "a3os.app/dev/audit": 0, "origin\nmany\nroot\n": 0, "origin\n42\nroot\n\n\u2014 origin AAAA\n": 42,
	} {
		if got := entries(note); got != want {
			t.Errorf("%q has %d entries, want %d", note, got, want)
		}
	}
}

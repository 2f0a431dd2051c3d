package local_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"a3os.app/tools/fleet/internal/backup"
	"a3os.app/tools/fleet/internal/platform/local"
)

// What a root isn't needed for goes on while it is gone: certificates are renewed by the intermediates that it made. Nor is another root made.
func TestCertificatesAreRenewedWhileTheRootIsGone(t *testing.T) {
	k := backedUpSet(t)
	home := filepath.Join(k.p.Settings.Home, "tenants", k.set.Name())
	root, leaf := filepath.Join(home, "pki", "root.pem"), filepath.Join(home, "components", "web", "certificate", "workload.pem")
	before, err := os.ReadFile(leaf)
	if err = errors.Join(err, os.Remove(root)); err != nil {
		t.Fatal(err)
	}
	k.p.Now = func() time.Time { return time.Now().AddDate(0, 0, 6) }
	if _, err := k.p.Authorities(k.set); !errors.Is(err, local.ErrKeyGone) {
		t.Errorf("the root is gone, and it is told %v", err)
	}
	if after, err := os.ReadFile(leaf); err != nil || bytes.Equal(before, after) {
		t.Errorf("a certificate that was to be renewed wasn't (%v)", err)
	}
	if _, err := os.Stat(root); err == nil {
		t.Error("another root was made")
	}
}

// A key that is put back may be an older one than the last that was there: the sealed copy of that one stays, whatever the next backup lays there.
func TestSealedCopyOfTheLastKeyStaysWhereAnOlderOneIsPutBack(t *testing.T) {
	k := backedUpSet(t)
	whose, err := k.p.Whose()
	if err != nil {
		t.Fatal(err)
	}
	recovery, public, err := backup.NewRecovery(whose.Plane, whose.ID, whose.ManifestKey)
	if err = errors.Join(err, os.WriteFile(k.p.RecoveryPublic(), []byte(public), 0o600)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(k.p.Settings.Home, "tenants", k.set.Name(), "keys", "backup.secret")
	opens := func(b *backup.Backup) bool {
		sealed, err := backup.Escrows(b.Dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range sealed {
			if key, err := recovery.Release(one, k.set.Name()); err == nil && b.Unlock(key) == nil {
				return true
			}
		}
		return false
	}
	older, key := k.backUp(t)
	if err := errors.Join(os.Remove(file), k.p.NewBackupKey(k.set)); err != nil {
		t.Fatal(err)
	}
	newer, _ := k.backUp(t)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if put, err := k.p.PutBackKeys(t.Context(), k.set, older, key); err != nil || strings.Join(put, " ") != file {
		t.Fatalf("put back are %q (%v)", put, err)
	}
	k.backUp(t)
	for name, b := range map[string]*backup.Backup{"older": older, "newer": newer} {
		if !opens(b) {
			t.Errorf("the %s backup opens with the recovery key no more", name)
		}
	}
}

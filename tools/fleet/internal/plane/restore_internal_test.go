package plane

import (
	"testing"

	"a3os.app/deploy/blueprint"
)

// A set of a release of before is put back by the statement that its product has by now, and by its own blueprint in all else; that of another product
// is left alone.
func TestReleaseOfBeforeIsPutBackByTheStatementOfNow(t *testing.T) {
	now := &blueprint.Blueprint{Name: "accessos", Digest: "now", Backup: &blueprint.Backup{Key: "backup", PutBack: "SELECT 1"}}
	then := &blueprint.Blueprint{Name: "accessos", Digest: "then", Backup: &blueprint.Backup{Key: "old"}}
	if got := putBackAs(then, now); got.Backup.PutBack != "SELECT 1" || got.Backup.Key != "old" || got.Digest != "then" || then.Backup.PutBack != "" {
		t.Errorf("it is put back by %+v of %s", got.Backup, got.Digest)
	}
	own := &blueprint.Blueprint{Name: "accessos", Backup: &blueprint.Backup{PutBack: "SELECT 2"}}
	other := &blueprint.Blueprint{Name: "notes", Backup: &blueprint.Backup{}}
	none := &blueprint.Blueprint{Name: "accessos"}
	for _, b := range []*blueprint.Blueprint{own, other, none} {
		if putBackAs(b, now) != b {
			t.Errorf("%s with %+v was changed", b.Name, b.Backup)
		}
	}
}

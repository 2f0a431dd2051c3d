package plane

import (
	"testing"

	"a3os.app/deploy/blueprint"
)

// A set of a release of before is put back, and its lost store emptied, by the statements that its product has by now, and by its own blueprint in all
// else; that of another product is left alone, and so is a store that is another one by now.
func TestReleaseOfBeforeIsMendedByTheStatementsOfNow(t *testing.T) {
	stores := func(emptied string) map[string]blueprint.Store {
		return map[string]blueprint.Store{
			"secrets": {Kind: blueprint.StoreSecret, Named: "SELECT 1", Emptied: emptied},
			"others":  {Kind: blueprint.StoreSecret, Named: "SELECT " + emptied, Emptied: emptied},
		}
	}
	now := &blueprint.Blueprint{Name: "accessos", Digest: "now", Backup: &blueprint.Backup{Key: "backup", PutBack: "SELECT 1"}, Stores: stores("UPDATE t")}
	then := &blueprint.Blueprint{Name: "accessos", Digest: "then", Backup: &blueprint.Backup{Key: "old"}, Stores: stores("")}
	got := mended(then, now)
	if got.Backup.PutBack != "SELECT 1" || got.Backup.Key != "old" || got.Digest != "then" {
		t.Errorf("it is put back by %+v of %s", got.Backup, got.Digest)
	}
	if got.Stores["secrets"].Emptied != "UPDATE t" || got.Stores["others"].Emptied != "" {
		t.Errorf("its stores are emptied by %+v", got.Stores)
	}
	if then.Backup.PutBack != "" || then.Stores["secrets"].Emptied != "" {
		t.Errorf("what is kept was changed: %+v %+v", then.Backup, then.Stores)
	}
	own := &blueprint.Blueprint{Name: "accessos", Backup: &blueprint.Backup{PutBack: "SELECT 2"}, Stores: stores("DELETE")}
	if got := mended(own, now); got.Backup.PutBack != "SELECT 2" || got.Stores["secrets"].Emptied != "DELETE" {
		t.Errorf("its own statements are not its own any more: %+v %+v", got.Backup, got.Stores)
	}
	if none := mended(&blueprint.Blueprint{Name: "accessos"}, now); none.Backup != nil || len(none.Stores) != 0 {
		t.Errorf("what isn't backed up is %+v", none)
	}
	other := &blueprint.Blueprint{Name: "notes", Backup: &blueprint.Backup{}}
	if mended(other, now) != other {
		t.Error("another product's is mended")
	}
}

package build

import (
	"strings"
	"testing"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/additive"
)

// Whoever builds a release, root included, has its migrations tried in a server that runs as somebody else then.
func TestMigrationsAreTriedWhoeverBuilds(t *testing.T) {
	r := Request{Previous: &registryv1.ReleaseManifest{Version: "1.0.0"}, Note: func(text string) { t.Log(text) }}
	made := additive.Migration{Name: "iam/00001_made", SQL: "-- +goose Up\nCREATE TABLE iam.things (id int, name text);\n"}
	lost := additive.Migration{Name: "iam/00002_lost", SQL: "-- +goose Up\nALTER TABLE iam.things DROP COLUMN name;\n"}
	findings, err := examine(t.Context(), r, []additive.Migration{made}, []additive.Migration{lost})
	if err != nil || len(findings) != 1 || !strings.Contains(findings[0].Migration, "00002_lost") {
		t.Errorf("a migration that takes a column away: %v, %v", findings, err)
	}
}

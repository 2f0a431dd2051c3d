package server_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"connectrpc.com/connect"

	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"

	"a3os.app/libs/blob"
	"a3os.app/libs/id"
	"a3os.app/services/integrations/internal/server"
)

func people() *integrationsv1.Settings {
	return &integrationsv1.Settings{Connector: &integrationsv1.Settings_Csv{Csv: &integrationsv1.CsvSettings{SystemName: "HR", Columns: []*integrationsv1.CsvColumn{
		{Header: "id", Field: integrationsv1.CsvField_CSV_FIELD_ACCOUNT_ID}, {Header: "mail", Field: integrationsv1.CsvField_CSV_FIELD_EMAIL}}}}}
}

func (e *env) upload(t *testing.T, w id.Workspace, integration, content string) (*integrationsv1.Integration, error) {
	t.Helper()
	res, err := e.server.UploadContent(e.in(t, w), connect.NewRequest(&integrationsv1.UploadContentRequest{IntegrationId: integration, Content: []byte(content)}))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

// path is where a run that begins now reads; empty where there is nothing.
func (e *env) path(t *testing.T, w id.Workspace, integration string) string {
	t.Helper()
	src, err := e.server.GetRunSource(e.in(t, w), connect.NewRequest(&integrationsv1.GetRunSourceRequest{IntegrationId: integration}))
	check(t, err)
	return src.Msg.GetSource().GetContentPath()
}

func (e *env) read(t *testing.T, key string) string {
	t.Helper()
	content, _, err := e.objects.Get(t.Context(), key)
	check(t, err)
	defer content.Close()
	raw, err := io.ReadAll(content)
	check(t, err)
	return string(raw)
}

func (e *env) keys(t *testing.T) []string {
	t.Helper()
	var keys []string
	for o, err := range e.objects.List(t.Context()) {
		check(t, err)
		keys = append(keys, o.Key)
	}
	return keys
}

func TestAWrongUploadIsRefusedWithItsLinesAndLeavesNothing(t *testing.T) {
	t.Parallel()
	e, w := newEnv(t), id.NewWorkspace()
	i := e.create(t, w, &integrationsv1.CreateIntegrationRequest{Name: "people", Settings: people()}).GetId()
	const good = "id,mail\nann,ann@example.test\n"
	for round, before := range []string{"", good} {
		for content, want := range map[string]string{
			"id,mail\nann,nonsense\n,b@example.test\nbob,b@example.test\n":          "2 rows of the upload are wrong and nothing was taken: mend them and upload it again: line 2: the email \"nonsense\" is no address; line 3: the account id is empty",
			"id,mail\nann,a@example.test\nann,b@example.test\n":                     "line 3: account \"ann\" has the email \"b@example.test\", but line 2 says \"a@example.test\"",
			"id,address\nann,a@example.test\n":                                      "the header lacks declared columns: \"mail\": it has [\"id\" \"address\"]",
			"id,mail\n":                                                             "no rows",
			"id,mail\n" + strings.Repeat(",\n", 100):                                "line 21: the account id is empty; and 80 more",
			"\xff\xfei\x00d\x00":                                                    "UTF-16",
			"id,mail\n" + strings.Repeat("ann,a@example.test\n", 1000) + "x,\"y\n":  "line 1002",
			"id,mail\n" + strings.Repeat("ann,a@example.test\n", 1000) + "x,y,z,\n": "line 1002: has 4 fields where the header has 2",
		} {
			_, err := e.upload(t, w, i, content)
			if !errors.Is(err, server.ErrContent) || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: answered %v, want %q in it", content[:min(len(content), 40)], err, want)
			}
		}
		if n := len(e.keys(t)); n != round {
			t.Errorf("after uploads that were refused %d objects are there, want %d", n, round)
		}
		if key := e.path(t, w, i); (key == "") != (before == "") || before != "" && e.read(t, key) != before {
			t.Errorf("what runs read after uploads that were refused is at %q, it was %q", key, before)
		}
		if round == 0 {
			if got, err := e.upload(t, w, i, good); err != nil || got.GetContentSize() != int64(len(good)) {
				t.Fatalf("a right upload: %v, %v", got, err)
			}
		}
	}
}

func TestARunGoesOnReadingTheUploadItBeganWith(t *testing.T) {
	t.Parallel()
	e, w := newEnv(t), id.NewWorkspace()
	i := e.create(t, w, &integrationsv1.CreateIntegrationRequest{Name: "people", Settings: people()}).GetId()
	content := func(n int) string { return fmt.Sprintf("id,mail\nuser%d,\n", n) }
	var paths []string
	for n := range 12 {
		_, err := e.upload(t, w, i, content(n))
		check(t, err)
		paths = append(paths, e.path(t, w, i))
		for back := max(0, n-8); back <= n; back++ {
			if got := e.read(t, paths[back]); got != content(back) {
				t.Fatalf("after upload %d the one numbered %d reads %q", n, back, got)
			}
		}
	}
	if n := len(e.keys(t)); n != 9 {
		t.Errorf("%d uploads are kept, want the present one and 8 that runs may be reading", n)
	}
	// A day later no run can be reading one of them.
	e.Exec(t, "UPDATE integrations.replaced_contents SET replaced_at = replaced_at - interval '27 hours'")
	_, err := e.upload(t, w, i, content(12))
	check(t, err)
	if n := len(e.keys(t)); n != 2 {
		t.Errorf("%d uploads are kept after a day, want the present one and the one before", n)
	}
	_, err = e.server.DeleteIntegration(e.in(t, w), connect.NewRequest(&integrationsv1.DeleteIntegrationRequest{IntegrationId: i}))
	check(t, err)
	if left := e.keys(t); len(left) != 0 {
		t.Errorf("of the removed integration there is still %v", left)
	}
	if _, _, err := e.objects.Get(t.Context(), paths[11]); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("the last upload of the removed integration: %v", err)
	}
}

func TestColumnsThatNoUploadCouldBeReadByAreRefused(t *testing.T) {
	t.Parallel()
	e, w := newEnv(t), id.NewWorkspace()
	s := people()
	s.GetCsv().Columns = s.GetCsv().GetColumns()[1:]
	_, err := e.server.CreateIntegration(e.in(t, w), connect.NewRequest(&integrationsv1.CreateIntegrationRequest{Name: "people", Settings: s}))
	if err == nil || !strings.Contains(err.Error(), "no column is declared to hold the account id") {
		t.Errorf("answered %v", err)
	}
}

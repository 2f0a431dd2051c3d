package csv_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"a3os.app/libs/csvupload"
	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
	"a3os.app/services/discoveryworker/internal/connector"
	"a3os.app/services/discoveryworker/internal/connector/connectortest"
	"a3os.app/services/discoveryworker/internal/connector/csv"
)

// allColumns maps every field to a header of its name.
func allColumns() []*integrationsv1.CsvColumn {
	return []*integrationsv1.CsvColumn{
		{Header: "id", Field: integrationsv1.CsvField_CSV_FIELD_ACCOUNT_ID},
		{Header: "name", Field: integrationsv1.CsvField_CSV_FIELD_DISPLAY_NAME},
		{Header: "email", Field: integrationsv1.CsvField_CSV_FIELD_EMAIL},
		{Header: "app", Field: integrationsv1.CsvField_CSV_FIELD_RESOURCE},
		{Header: "right", Field: integrationsv1.CsvField_CSV_FIELD_ENTITLEMENT},
		{Header: "team", Field: integrationsv1.CsvField_CSV_FIELD_GROUP},
		{Header: "status", Field: integrationsv1.CsvField_CSV_FIELD_STATUS},
	}
}

const header = "id,name,email,app,right,team,status\n"

func source(content string, columns ...*integrationsv1.CsvColumn) connector.Source {
	if columns == nil {
		columns = allColumns()
	}
	return connector.Source{
		Name: "people",
		Settings: &integrationsv1.Settings{Connector: &integrationsv1.Settings_Csv{
			Csv: &integrationsv1.CsvSettings{SystemName: "people", Columns: columns},
		}},
		Content: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil },
	}
}

func TestUploadIsReadLikeEveryConnectorReads(t *testing.T) {
	var b strings.Builder
	b.WriteString(header)
	for i := range 900 {
		fmt.Fprintf(&b, "u%d,User %d,u%d@example.test,app%d,right%d,team%d,active\n", i%300, i%300, i%300, i%7, i%11, i%5)
	}
	connectortest.Test(t, csv.New(), source(b.String()))
}

// facts are what records say, as lines of text.
func facts(records []*discoveryv1.Record) map[string]string {
	out := map[string]string{}
	for _, r := range records {
		switch {
		case r.GetResource() != nil:
			x := r.GetResource()
			out[x.GetType()+" "+x.GetExternalId()] = fmt.Sprintf("%s %v %s %s", x.GetDisplayName(), x.GetAccount(), x.GetAttributes()["email"], x.GetAttributes()["status"])
		case r.GetEntitlement() != nil:
			x := r.GetEntitlement()
			out["entitlement "+x.GetResource().GetExternalId()+" "+x.GetName()] = x.GetPurpose().String()
		case r.GetGrant() != nil:
			x := r.GetGrant()
			out["grant "+x.GetPrincipal().GetExternalId()+" "+x.GetEntitlement().GetResource().GetType()+" "+x.GetEntitlement().GetResource().GetExternalId()+" "+x.GetEntitlement().GetName()] = x.GetReason()
		}
	}
	return out
}

func TestRowsBecomeAccountsGroupsAppsAndGrantsEachOnce(t *testing.T) {
	content := "\xEF\xBB\xBFid,name,email,app,right,team,status,ignored\r\n" +
		"ann,Ann,ann@example.test,payroll,admin,finance,active,x\r\n" +
		"ann,,,payroll,admin,finance,,y\r\n" +
		" bob ,\"Bob \"\"B\"\", jr\",,wiki,viewer,,Disabled,\r\n" +
		"\r\n" +
		"cy,,cy@example.test,,,,,\r\n"
	want := map[string]string{
		"user ann":                       "Ann true ann@example.test active",
		"user bob":                       `Bob "B", jr true  disabled`,
		"user cy":                        "cy true cy@example.test active",
		"group finance":                  "finance false  ",
		"app payroll":                    "payroll false  ",
		"app wiki":                       "wiki false  ",
		"entitlement finance member":     "ENTITLEMENT_PURPOSE_MEMBERSHIP",
		"entitlement payroll admin":      "ENTITLEMENT_PURPOSE_PERMISSION",
		"entitlement wiki viewer":        "ENTITLEMENT_PURPOSE_PERMISSION",
		"grant ann group finance member": "line 2",
		"grant ann app payroll admin":    "line 2",
		"grant bob app wiki viewer":      "line 4",
	}
	got := connectortest.ReadAll(t, csv.New(), source(content), nil)
	if diff := cmp.Diff(want, facts(got.Records)); diff != "" {
		t.Error(diff)
	}
	if len(got.Records) != len(want) {
		t.Errorf("%d records for %d facts", len(got.Records), len(want))
	}
}

func TestAResourceWithoutAColumnForEntitlementsIsAccess(t *testing.T) {
	got := facts(connectortest.ReadAll(t, csv.New(), source("id,app\nann,wiki\n",
		&integrationsv1.CsvColumn{Header: "id", Field: integrationsv1.CsvField_CSV_FIELD_ACCOUNT_ID},
		&integrationsv1.CsvColumn{Header: "app", Field: integrationsv1.CsvField_CSV_FIELD_RESOURCE}), nil).Records)
	if got["grant ann app wiki access"] == "" {
		t.Errorf("got %v", got)
	}
}

func TestAWrongUploadIsRefusedWholeAndSaysWhere(t *testing.T) {
	row := "ann,,,wiki,viewer,,\n"
	long := strings.Repeat("x", 1025)
	for _, tc := range []struct{ name, content, want string }{
		{"nothing", "", "the upload is empty"},
		{"no rows", header, "has no rows"},
		{"UTF-16", "\xFF\xFEi\x00d\x00", "is UTF-16"},
		{"missing columns", "id,name,email\nann,,\n", `lacks declared columns: "app", "right", "team", "status"`},
		{"columns of one name", "id,name,email,app,right,team,status,id\n", `columns of one name: "id"`},
		{"header that isn't UTF-8", "id,na\xffme\n", "column 2 of the header is not UTF-8"},
		{"header with a quote", "id,\"na\"me\n", "the header, line 1, can't be read"},
		{"too few fields", header + row + "ann,x\n", "line 3: has 2 fields where the header has 7"},
		{"too many fields", header + "ann,,,wiki,viewer,,,more\n" + row, "line 2: has 8 fields where the header has 7"},
		{"lone quote", header + "a\"nn,,,wiki,viewer,,\n" + row, "line 2: column 2: a quote stands alone"},
		{"open quote", header + row + "\"ann,,,wiki,viewer,,\n", "line 3: column"},
		{"no account", header + " ,,,wiki,viewer,,\n", "line 2: the account id is empty"},
		{"not UTF-8", header + row + "a\xffn,,,wiki,viewer,,\n", "line 3: the account id is not UTF-8"},
		{"NUL", header + "ann,,,wi\x00ki,viewer,,\n", "line 2: the resource has a NUL"},
		{"line break", header + "ann,\"a\nb\",,wiki,viewer,,\n" + row + "x,,bad,,,,\n", "line 2: the display name has a control character or a line break; line 5: the email"},
		{"oversized", header + long + ",,,wiki,viewer,,\n", "line 2: the account id has more than 1024 characters"},
		{"bad email", header + "ann,,ann at home,wiki,viewer,,\n", `line 2: the email "ann at home" is no address`},
		{"bad status", header + "ann,,,wiki,viewer,,gone\n", `line 2: the status "gone" is neither active nor disabled`},
		{"entitlement on nothing", header + "ann,,,,viewer,,\n", `line 2: the entitlement "viewer" is on no resource`},
		{"no entitlement", header + "ann,,,wiki,,,\n", `line 2: the entitlement on "wiki" is empty`},
		{"contradiction", header + "ann,,a@x.test,,,,\nann,,b@x.test,,,,\n", `line 3: account "ann" has the email "b@x.test", but line 2 says "a@x.test"`},
		{"too long", header + strings.Repeat(row, csvupload.MaxContent/len(row)+1), "longer than 16777216 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sink := connectortest.NewRecorder()
			_, err := csv.New().Read(t.Context(), source(tc.content), nil, sink)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("Read answered %v, want %q in it", err, tc.want)
			}
			if _, permanent := errors.AsType[*connector.PermanentError](err); !permanent {
				t.Errorf("%v would be tried again, though nothing but another upload mends it", err)
			}
			if len(sink.Records) > 0 || len(sink.Completed) > 0 {
				t.Errorf("%d records were taken of an upload that is wrong, complete: %v", len(sink.Records), sink.Completed)
			}
			if result, err := csv.New().Test(t.Context(), source(tc.content)); err != nil || result.OK {
				t.Errorf("Test answered %+v, %v", result, err)
			}
		})
	}
}

func TestOfManyBadRowsTwentyAreNamedAndTheRestCounted(t *testing.T) {
	_, err := csv.New().Read(t.Context(), source(header+strings.Repeat(",,,,,,\n", 33)), nil, connectortest.NewRecorder())
	bad, ok := csvupload.IsWrong(err)
	if !ok || len(bad.Rows) != 20 || bad.Total != 33 || !strings.HasSuffix(err.Error(), "line 21: the account id is empty; and 13 more") {
		t.Errorf("Read answered %v", err)
	}
}

func TestAWrongMappingIsRefused(t *testing.T) {
	id := &integrationsv1.CsvColumn{Header: "id", Field: integrationsv1.CsvField_CSV_FIELD_ACCOUNT_ID}
	for name, tc := range map[string]struct {
		columns []*integrationsv1.CsvColumn
		want    string
	}{
		"no account id":      {[]*integrationsv1.CsvColumn{{Header: "app", Field: integrationsv1.CsvField_CSV_FIELD_RESOURCE}}, "no column is declared to hold the account id"},
		"a field twice":      {[]*integrationsv1.CsvColumn{id, {Header: "key", Field: integrationsv1.CsvField_CSV_FIELD_ACCOUNT_ID}}, "both declared to hold the account id"},
		"a header twice":     {[]*integrationsv1.CsvColumn{id, {Header: "id", Field: integrationsv1.CsvField_CSV_FIELD_EMAIL}}, `column "id" is declared twice`},
		"no resource column": {[]*integrationsv1.CsvColumn{id, {Header: "r", Field: integrationsv1.CsvField_CSV_FIELD_ENTITLEMENT}}, "none the resource"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := csv.New().Read(t.Context(), source("id,key,app,r\na,b,c,d\n", tc.columns...), nil, connectortest.NewRecorder())
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Read answered %v, want %q in it", err, tc.want)
			}
		})
	}
}

func TestAnUploadThatChangesBetweenSlicesFails(t *testing.T) {
	rows := func(right string) string {
		var b strings.Builder
		b.WriteString(header)
		for i := range 500 {
			fmt.Fprintf(&b, "u%d,,,wiki,%s,,\n", i, right)
		}
		return b.String()
	}
	sink := connectortest.NewRecorder()
	sink.AlwaysDue = true
	next, err := csv.New().Read(t.Context(), source(rows("viewer")), nil, sink)
	if err != nil || next == nil {
		t.Fatalf("the first slice answered %q, %v", next, err)
	}
	if _, err := csv.New().Read(t.Context(), source(rows("editor")), next, sink); err == nil || !strings.Contains(err.Error(), "changed") {
		t.Errorf("the second slice answered %v", err)
	}
}

func TestAnUploadThatCannotBeOpenedIsTriedAgain(t *testing.T) {
	s := source("")
	gone := errors.New("the object store is away")
	s.Content = func(context.Context) (io.ReadCloser, error) { return nil, gone }
	_, err := csv.New().Read(t.Context(), s, nil, connectortest.NewRecorder())
	if _, permanent := errors.AsType[*connector.PermanentError](err); !errors.Is(err, gone) || permanent {
		t.Errorf("Read answered %v", err)
	}
}

// TestWhatRowsSayIsWhatIsEmitted compares with the plainest reading of random rows, whatever stands in the cells.
func TestWhatRowsSayIsWhatIsEmitted(t *testing.T) {
	word := rapid.OneOf(rapid.SampledFrom([]string{"a", "b", "c d", `q"q`, "k,k", "ü", "\u00a0x", "member"}), rapid.StringMatching(`[a-z]{1,3}`))
	rapid.Check(t, func(rt *rapid.T) {
		want := map[string]bool{}
		var b bytes.Buffer
		b.WriteString(header)
		for range rapid.IntRange(1, 40).Draw(rt, "rows") {
			id, app, right, team := word.Draw(rt, "id"), "", "", ""
			if rapid.Bool().Draw(rt, "has app") {
				app, right = word.Draw(rt, "app"), word.Draw(rt, "right")
			}
			if rapid.Bool().Draw(rt, "has team") {
				team = word.Draw(rt, "team")
			}
			quoted := func(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
			fmt.Fprintf(&b, "%s,,,%s,%s,%s,\r\n", quoted(id), quoted(app), quoted(right), quoted(team))
			trim := strings.TrimSpace
			want["user "+trim(id)] = true
			if app != "" {
				want["app "+trim(app)] = true
				want["entitlement "+trim(app)+" "+trim(right)] = true
				want["grant "+trim(id)+" app "+trim(app)+" "+trim(right)] = true
			}
			if team != "" {
				want["group "+trim(team)] = true
				want["entitlement "+trim(team)+" member"] = true
				want["grant "+trim(id)+" group "+trim(team)+" member"] = true
			}
		}
		sink := connectortest.NewRecorder()
		if _, err := csv.New().Read(t.Context(), source(b.String()), nil, sink); err != nil {
			rt.Fatalf("Read: %v", err)
		}
		got := map[string]bool{}
		for k := range facts(sink.Records) {
			got[k] = true
		}
		if !maps.Equal(want, got) {
			rt.Fatal(cmp.Diff(want, got))
		}
	})
}

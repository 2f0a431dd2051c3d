package csvupload_test

import (
	"bytes"
	"encoding/csv"
	"strings"
	"testing"

	"a3os.app/libs/csvupload"
	integrationsv1 "a3os.app/proto/gen/go/a3os/integrations/v1"
)

// FuzzCheck gives an upload any bytes. The oracle is encoding/csv's plain reading of the same: as many rows, and each the row that
// stands there; and what Check finds right, Read reads whole, with the same digest.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{
		"account,app,right\nann,ledger,read\n", "account,app,right\n", "", "\xef\xbb\xbfaccount,app,right\nann,l,r\n", "\xff\xfea", "account,app\nann,l\n",
		"account,app,right\r\n\"an\nn\",l,r\r\n", "account,app,right\nann,l\n", "account,app,right\n\"ann,l,r\n", "account,app,right\n,l,r\n", "account,app,right\na\x00b,l,r\n",
		"right,account,extra,app\nr,ann,x,l\n", "account,account,app,right\na,b,c,d\n", "account,app,right\n\xff,l,r\n", "account,app,right\n ann ,l,r\n\n\n",
	} {
		f.Add([]byte(s))
	}
	settings := &integrationsv1.CsvSettings{SystemName: "apps", Columns: []*integrationsv1.CsvColumn{
		{Header: "account", Field: integrationsv1.CsvField_CSV_FIELD_ACCOUNT_ID}, {Header: "app", Field: integrationsv1.CsvField_CSV_FIELD_RESOURCE},
		{Header: "right", Field: integrationsv1.CsvField_CSV_FIELD_ENTITLEMENT},
	}}
	f.Fuzz(func(t *testing.T, content []byte) {
		checked, err := csvupload.Check(t.Context(), bytes.NewReader(content), settings)
		if err != nil {
			if wrong, ok := csvupload.IsWrong(err); !ok || checked != nil || len(wrong.Error()) > 1<<16 {
				t.Fatalf("%q: %v", content, err)
			}
			return
		}
		var rows []csvupload.Row
		digest, err := csvupload.Read(t.Context(), bytes.NewReader(content), settings, func(r csvupload.Row) error { rows = append(rows, r); return nil })
		if err != nil || digest != checked.Digest || len(rows) != checked.Rows {
			t.Fatalf("%q was right, with %d rows, and is read as %d, %v", content, checked.Rows, len(rows), err)
		}
		all, err := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(content, []byte("\xef\xbb\xbf")))).ReadAll()
		if err != nil || len(all)-1 != len(rows) {
			t.Fatalf("%q has %d rows, by encoding/csv %d, %v", content, len(rows), len(all)-1, err)
		}
		at := map[string]int{}
		for i, h := range all[0] {
			at[strings.TrimSpace(h)] = i
		}
		for i, r := range rows {
			if r.Account == "" || r.Account != strings.TrimSpace(all[i+1][at["account"]]) || r.Resource != strings.TrimSpace(all[i+1][at["app"]]) {
				t.Fatalf("row %d of %q is read as %+v", i, content, r)
			}
			if _, known := checked.Accounts[r.Account]; !known {
				t.Fatalf("%q: account %q is not among the upload's", content, r.Account)
			}
		}
	})
}

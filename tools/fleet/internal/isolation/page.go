package isolation

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"time"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"time":    func(t time.Time) string { return t.Format("2 January 2006, 15:04:05 UTC") },
	"percent": func(part, whole int) string { return fmt.Sprintf("%.0f %%", 100*float64(part)/float64(max(whole, 1))) },
}).Parse(pageText))

// Page is the report for a reader: one HTML file that needs nothing else. What is signed is the other file; signer names its key.
func (r *Report) Page(signer string) ([]byte, error) {
	var b bytes.Buffer
	err := page.Execute(&b, map[string]any{"Report": r, "Signer": signer, "Refused": r.Count(Refused), "Holes": r.Count(Hole), "Unproven": r.Count(Unproven),
		"Took": r.Ended.Sub(r.Began).Round(100 * time.Millisecond)})
	return b.Bytes(), err
}

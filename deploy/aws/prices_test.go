package aws_test

import (
	"strings"
	"testing"

	"a3os.app/deploy/aws"
)

func TestBrokenTableOfPricesIsRefusedByLineAndField(t *testing.T) {
	const head = "item,unit,usd,region,date,source\n"
	for text, want := range map[string]string{
		"":       "head of mine.csv",
		"item\n": "line 1",
		head + "a,hour,x,r,2026-01-01,https://a\n":                                  "line 2: usd is",
		head + "a,hour,NaN,r,2026-01-01,https://a\n":                                "line 2: usd is",
		head + "a,hour,-1,r,2026-01-01,https://a\n":                                 "line 2: usd is",
		head + "a,day,1,r,2026-01-01,https://a\n":                                   "line 2: unit is",
		head + "a,hour,1,r,yesterday,https://a\n":                                   "line 2: date is",
		head + "a,hour,1,r,2026-01-01,\n":                                           "line 2: source is empty",
		head + "a,hour,1,r,2026-01-01,https://a\na,hour,1,r,2026-01-01,https://a\n": "line 3: item",
	} {
		if _, err := aws.ParsePrices("mine.csv", strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

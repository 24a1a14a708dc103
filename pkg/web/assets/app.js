// What pages do beyond what their HTML does. Text of strangers is only ever set
// as text: nothing here parses HTML, and Trusted Types forbid it.
import { keys } from "./keys.js";
import { live } from "./live.js";
import { views } from "./views.js";

keys();
live();
views();

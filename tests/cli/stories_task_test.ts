/** What users do in a shell, with `deno task mor`. */
import { tellStories } from "../support/stories.ts";

await tellStories("task");

/** What users do in a shell, with dist/mor. */
import { tellStories } from "../support/stories.ts";

await tellStories("binary");
